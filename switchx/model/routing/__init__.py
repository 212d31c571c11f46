"""Which experts do tokens use? Policies and explorations, each in a file of its own.

A policy is named by SwitchConfig.encoder_routing (the decoder's tokens always choose), an
exploration by SwitchConfig.exploration. Each is made from the fields of SwitchConfig that bear
its settings' names, and refuses those that mean nothing to it. No file here knows SwitchConfig.
"""

from collections.abc import Callable

from switchx.model.routing.assignment import (
    EXPERT_SITE,
    INPUT_SITE,
    Assignment,
    Policy,
    Settings,
    Tokens,
)
from switchx.model.routing.balance import LOSS_OVER, Balance, Tally
from switchx.model.routing.capacity import Capacity, Pools, Slots, queues
from switchx.model.routing.experts_choose import ExpertsChoose
from switchx.model.routing.exploration import EXPLORATIONS, Exploration
from switchx.model.routing.rerouting import Rerouting
from switchx.model.routing.stats import RoutingStats
from switchx.model.routing.tokens_choose import PRIORITIES, SECOND_POLICIES, TokensChoose


def _tokens_choose(settings: Settings) -> Policy:
    return (Rerouting if settings.reroute_rounds else TokensChoose).of(settings)


POLICIES: dict[str, Callable[[Settings], Policy]] = {
    "tokens_choose": _tokens_choose,
    "experts_choose": ExpertsChoose.of,
}

__all__ = [
    "EXPERT_SITE",
    "EXPLORATIONS",
    "INPUT_SITE",
    "LOSS_OVER",
    "POLICIES",
    "PRIORITIES",
    "SECOND_POLICIES",
    "Assignment",
    "Balance",
    "Capacity",
    "Exploration",
    "Policy",
    "Pools",
    "RoutingStats",
    "Settings",
    "Slots",
    "Tally",
    "Tokens",
    "TokensChoose",
    "queues",
]
