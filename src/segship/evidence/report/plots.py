"""What the report plots: all candidates of a deployment, and the plans that a search has judged."""

from __future__ import annotations

import math

from segship.evidence.records import Candidate, Deployment
from segship.evidence.report import words
from segship.evidence.report.chart import Dot, Plot
from segship.evidence.report.outcome import find_reference
from segship.evidence.searches import Found, JudgedPlan


def candidates_plot(deployment: Deployment) -> Plot:
    """Every candidate that was timed and scored, on one time scale: image file to mask if all have it, else the network."""
    reference = find_reference(deployment)
    scored = [(each, score) for each in deployment.candidates if (score := _score(deployment, each)) is not None]
    image = [(each, each.image_ms, score) for each, score in scored if each.image_ms]
    network = [(each, each.network_ms, score) for each, score in scored if each.network_ms]
    scope, chosen = ("image file to mask", image) if len(image) >= len(network) else ("network alone", network)
    dots = {each.name: _dot(each, ms, score) for each, ms, score in chosen}
    return Plot(
        dots=tuple(dots.values()),
        held=dots.get(reference.name) if reference is not None else None,
        max_drop=deployment.max_drop,
        x_title=f"ms per image, {scope}",
        y_title=_score_name(deployment),
        speed_title="speed-up over PyTorch",
    )


def _dot(candidate: Candidate, ms: float, score: float) -> Dot:
    text = words.percent(score) if score == candidate.agreement else words.points(score)
    return Dot(words.candidate_name(candidate.name), ms, score, text, candidate.chosen)


def search_plot(found: Found, deployment: Deployment) -> Plot:
    """The plans that were timed, beside FP32 on the same backend; what they drop is measured from PyTorch's score."""
    reference = find_reference(deployment)
    score = (_score(deployment, reference) if reference is not None else None) or 100.0
    held = Dot("FP32", found.fp32_ms, score, words.points(score)) if found.fp32_ms else None
    plans = [(each, each.network_ms, each.drop) for each in found.judged if each.network_ms and each.drop is not None]
    dots = [Dot(plan_name(each), ms, score - drop, words.points(score - drop), each.chosen) for each, ms, drop in plans]
    return Plot(
        dots=(*([held] if held else []), *dots),
        held=held,
        max_drop=deployment.max_drop,
        x_title="ms, network alone",
        y_title=_score_name(deployment),
        speed_title="speed-up over FP32",
    )


def plan_name(plan: JudgedPlan) -> str:
    """What stays in float, in few words."""
    if not plan.kept:
        return "INT8"
    return f"{plan.kept[0]} float" if len(plan.kept) == 1 else f"{len(plan.kept)} groups float"


def _score(deployment: Deployment, candidate: Candidate) -> float | None:
    """The metric, or without labels the agreement with PyTorch, which PyTorch has to 100 %."""
    if _labelled(deployment):
        score = candidate.metric
    else:
        score = 100.0 if candidate is find_reference(deployment) else candidate.agreement
    return None if score is None or math.isnan(score) else score


def _score_name(deployment: Deployment) -> str:
    return deployment.metric_name if _labelled(deployment) else "% that agrees with PyTorch"


def _labelled(deployment: Deployment) -> bool:
    return any(candidate.metric is not None for candidate in deployment.candidates)
