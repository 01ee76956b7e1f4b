"""From a VirtualService's routes to the destinations that they name, for sidecars and gateways alike."""

from __future__ import annotations

from discovery.plan.memo import Memo
from discovery.plan.model import Target
from discovery.plan.origins import Problem, problem_with
from discovery.plan.routes import Routed, Side, applicable, routes_of
from discovery.plan.targets import Catalogue
from discovery.plan.virtual_services import Bound


class Following:
    """Follows routes for one build; collects problems, and the names of destinations that do not exist."""

    def __init__(self, memo: Memo, catalogue: Catalogue) -> None:
        self.memo = memo
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self.missing: set[str] = set()

    def http(self, one: Bound, port: int, side: Side) -> Routed:
        """The routes of `one` for requests to `port` on that side."""
        chosen = applicable(one, side, port)
        resolved = tuple(
            tuple(self.catalogue.resolve(route.destination, one.namespace, port) for route in rule.route)
            for rule in one.spec.http
        )
        found = self.memo(routes_of, one, port, chosen, resolved)
        self.problems.extend(found.problems)
        self.missing.update(
            target.name
            for matches, targets in zip(chosen, resolved, strict=True)
            for target in targets
            if target.missing and matches
        )
        return found

    def tcp(self, one: Bound, port: int) -> tuple[tuple[Target, ...], int] | None:
        """Where the first tcp route of `one` that holds for `port` leads, and its index."""
        for index, rule in enumerate(one.spec.tcp):
            if rule.match and all(match.port not in (0, port) for match in rule.match):
                continue
            targets = []
            for number, route in enumerate(rule.route):
                found = self.catalogue.resolve(route.destination, one.namespace, port)
                if found.missing:
                    field = f"spec.tcp[{index}].route[{number}].destination.{found.field}"
                    says = f"{found.missing}: connections sent there are closed"
                    self.problems.append(problem_with(one.thing, field, says, found.hint))
                    self.missing.add(found.name)
                if route.weight > 0 or len(rule.route) == 1:
                    targets.append(Target(found.name, max(route.weight, 1)))
            if targets:
                return tuple(targets), index
        return None
