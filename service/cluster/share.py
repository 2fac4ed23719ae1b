"""A worker's share of the cluster: a placement group, so that everybody else on the cluster sees it taken."""

from __future__ import annotations

from typing import Any

from ray.util.placement_group import (
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NODE_LABEL = "ray.io/node-id"


class Share:
    """CPUs and GPUs of one node. Asking for it does not wait; it may never come."""

    def __init__(self, group: Any, gpus: float = 0.0) -> None:
        self._group = group
        self._gpus = gpus

    @classmethod
    def ask(cls, *, cpus: float, gpus: float, node: str | None, name: str = "") -> Share:
        """Asks for it; one with a name outlives this process."""
        bundle = {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
        where = [{NODE_LABEL: node}] if node else None
        lifetime = "detached" if name else None
        return cls(placement_group([bundle], name=name, lifetime=lifetime, bundle_label_selector=where), gpus)

    @classmethod
    def named(cls, name: str) -> Share | None:
        """The one of this name, if it is there."""
        try:
            return cls(get_placement_group(name))
        except ValueError:
            return None

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


def shares(prefix: str) -> list[str]:
    """The names, with this beginning, of the shares that are there or asked for."""
    found = placement_group_table().values()
    return [entry["name"] for entry in found if entry["name"].startswith(prefix) and entry["state"] != "REMOVED"]
