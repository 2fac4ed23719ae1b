"""The status page at the metrics' address, for those without a Grafana: one page of HTML, and the JSON it shows."""
