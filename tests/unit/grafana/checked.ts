import type { Dashboard, Panel, RowPanel } from '@grafana/schema/dist/types/raw/dashboard/x/dashboard_types.gen';
import type * as ts from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as bg from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
export interface Checked {
  dashboard: Dashboard; panel: Panel; row: RowPanel;
  timeseriesOptions: ts.Options; timeseriesField: ts.FieldConfig;
  statOptions: stat.Options; bargaugeOptions: bg.Options; tableOptions: table.Options; tableField: table.FieldConfig;
}
