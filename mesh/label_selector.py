"""Kubernetes' label selector, as in `alwaysInjectSelector`. Pure.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from mesh.istio.base import EMPTY, Model, Text
from mesh.istio.texts import LabelSet


class Operator(StrEnum):
    In = "In"
    NotIn = "NotIn"
    Exists = "Exists"
    DoesNotExist = "DoesNotExist"


class Requirement(Model):
    """One label. A label that is not there is in no set."""

    required = ("key", "operator")

    key: Text = ""
    operator: Operator = Operator.Exists
    values: tuple[Text, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case Operator.In:
                return labels.get(self.key) in self.values
            case Operator.NotIn:
                return self.key not in labels or labels[self.key] not in self.values
            case Operator.Exists:
                return self.key in labels
            case Operator.DoesNotExist:
                return self.key not in labels


class LabelSelector(Model):
    """All of it must hold."""

    match_labels: LabelSet = EMPTY
    match_expressions: tuple[Requirement, ...] = ()

    def chooses(self, labels: Mapping[str, str]) -> bool:
        """Whether it matches; one that says nothing chooses nothing, as in Istio."""
        if not self.match_labels and not self.match_expressions:
            return False
        same = all(labels.get(key) == value for key, value in self.match_labels.items())
        return same and all(each.holds(labels) for each in self.match_expressions)


def any_chooses(selectors: Iterable[LabelSelector], labels: Mapping[str, str]) -> bool:
    """Whether one of several matches."""
    return any(selector.chooses(labels) for selector in selectors)
