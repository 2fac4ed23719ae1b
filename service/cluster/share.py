"""A worker's share of the cluster: a placement group, so that everybody else on the cluster sees it taken."""

from __future__ import annotations

from typing import Any

from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NODE_LABEL = "ray.io/node-id"


class Share:
    """CPUs and GPUs of one node. Asking for it does not wait; it may never come."""

    def __init__(self, *, cpus: float, gpus: float, node: str | None) -> None:
        self._gpus = gpus
        bundle = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
        self._group: Any = placement_group([bundle], bundle_label_selector=[{NODE_LABEL: node}] if node else None)

    def node(self) -> str | None:
        """The node that gave it; None until one does."""
        table = placement_group_table(self._group)
        return str(table["bundles_to_node_id"][0]) if table.get("state") == "CREATED" else None

    def options(self) -> dict[str, object]:
        """Of an actor within the share; Ray then says by CUDA_VISIBLE_DEVICES which GPUs it has."""
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)
        return {"num_gpus": self._gpus, "scheduling_strategy": strategy}

    def release(self) -> None:
        """Gives it back, or stops asking."""
        remove_placement_group(self._group)
