"""How each kind of vector file is run. All of it asks for the behaviour of upstream."""

from __future__ import annotations

import numpy as np
from deviations import EXACT, IMAGE, INTERPOLATION, STATISTIC

from bgmatch_dask.geometry import Box
from bgmatch_dask.numerics.chebyshev import ChebyshevControl, Weighting, fit_chebyshev
from bgmatch_dask.numerics.gridded import (
    BackgroundControl,
    background_from_values,
    measure_background,
)
from bgmatch_dask.numerics.interpolation import (
    InterpStyle,
    best_style,
    interpolate,
    minimum_points,
    parse_style,
)
from bgmatch_dask.numerics.rendering import UndersampleStyle
from bgmatch_dask.numerics.statistics import Property, StatisticsControl, measure_statistics

WORST_CONDITION = 1e10
"""Polynomials from normal matrices of a higher condition number are not compared."""


def _polynomial(order, weighting):
    return ChebyshevControl(
        order, Weighting.INVERSE_VARIANCE if weighting else Weighting.NONE, order_y=order
    )


def run_interp(params, results, data, found):
    """Kind "interp": `interpolate` and the two tables."""
    for i, item in enumerate(params["items"]):
        for style in item["styles"]:
            label = f"i{i}_{style}"
            x, y, t = (data[f"in_i{i}_{name}"] for name in ("x", "y", "xq"))
            got = found.call(
                "interp", label, results[label],
                lambda x=x, y=y, t=t, style=style: interpolate(
                    x, y, t, parse_style(style), upstream=True
                ),
            )  # fmt: skip
            if got is not None:
                found.compare("interp", INTERPOLATION, label, got, data[f"out_{label}"])
    for label, result in results.items():
        name, _, argument = label.rstrip(")").partition("(")
        if name == "lookupMaxInterpStyle":
            got = found.call("interp", label, result, lambda n=int(argument): best_style(n).name)
        elif name == "lookupMinInterpPoints":
            style = InterpStyle.__members__.get(argument, -1)
            got = found.call("interp", label, result, lambda style=style: minimum_points(style))
        else:
            continue
        if got is not None:
            found.equal(label, got, result["value"])


def run_approx(params, results, data, found):
    """Kind "approx": `fit_chebyshev` on given cells."""
    box = Box(*params["bbox"])
    for k, request in enumerate(params["approx"]):
        label = f"a{k}"

        def draw(request=request):
            control = _polynomial(request["order"], request["weighting"])
            fit = fit_chebyshev(
                data["in_xv"], data["in_yv"], data["in_simg"], data["in_svar"], box, control
            )
            return fit, fit.render(order=request.get("trunc"))

        _compare_polynomial("approx", label, results[label], draw, data, found)


def _compare_polynomial(kind, label, result, draw, data, found):
    got = found.call(kind, label, result, draw)
    if got is None:
        return
    fit, image = got
    found.equal(f"{label} n_valid", fit.n_valid, result.get("n_valid", fit.n_valid))
    if result.get("cond", 0.0) <= WORST_CONDITION:
        found.compare(kind, IMAGE, label, image, data[f"out_{label}_image"])


def _compare_images(kind, prefix, background, requests, results, data, found):
    for k, request in enumerate(requests):
        label = f"{prefix}m{k}"
        result = results[label]
        got = found.call(kind, label, result, lambda request=request: _draw(background, request))
        if got is None:
            continue
        stored = result.get("same_as", label)
        found.compare(kind, IMAGE, label, got.image, data[f"out_{stored}_image"])
        found.equal(f"{label} xy0", [got.box.x0, got.box.y0], result["xy0"])
        found.equal(f"{label} style", got.style.name, result["asUsedInterpStyle"])
        found.equal(f"{label} rule", got.undersample.name, result["asUsedUndersampleStyle"])


def _draw(background, request):
    box = Box(*request["bbox"]) if "bbox" in request else None
    if request["interp"] is None:
        return background.render(box, upstream=True)
    rule = UndersampleStyle[request["under"]]
    return background.render(box, parse_style(request["interp"]), rule, upstream=True)


def _compare_polynomials(kind, prefix, background, requests, results, data, found):
    for k, request in enumerate(requests):
        label = f"{prefix}a{k}"

        def draw(request=request):
            fit = background.approximate(_polynomial(request["order"], request["weighting"]))
            return fit, fit.render(order=request.get("trunc"))

        _compare_polynomial(kind, label, results[label], draw, data, found)


def run_from_stats(params, results, data, found):
    """Kind "from_stats": `background_from_values`, drawn in several ways."""
    kind = "from_stats"
    box = Box(*params["bbox"])
    background = background_from_values(box, data["in_simg"], mask=data.get("in_smask"))
    if "iadd" in params:
        background += params["iadd"]
    found.compare(kind, EXACT, "xcen", background.x_centres, data["out_xcen"])
    found.compare(kind, EXACT, "ycen", background.y_centres, data["out_ycen"])
    _compare_images(kind, "", background, params.get("images", []), results, data, found)
    _compare_polynomials(kind, "", background, params.get("approx", []), results, data, found)


PROPERTIES = (
    Property.NPOINT,
    Property.MEAN,
    Property.STDEV,
    Property.VARIANCE,
    Property.MEDIAN,
    Property.IQRANGE,
    Property.MEANCLIP,
    Property.STDEVCLIP,
    Property.VARIANCECLIP,
    Property.MEANSQUARE,
    Property.SUM,
    Property.NCLIPPED,
    Property.NMASKED,
)
"""Columns of the arrays of kind "stats"."""

OVERFLOWING = {"STDEV", "VARIANCE", "STDEVCLIP", "VARIANCECLIP"}
"""Properties whose errors overflow an int upstream above 46340 pixels."""

CONTROL_NAMES = {
    "numSigmaClip": "n_sigma",
    "numIter": "n_iter",
    "andMask": "and_mask",
    "nanSafe": "nan_safe",
}


def _control(arguments):
    options = {CONTROL_NAMES[key]: v for key, v in arguments.items() if key in CONTROL_NAMES}
    modes = [
        name
        for flag, name in (
            ("calcErrorFromInputVariance", "input_variance"),
            ("calcErrorMosaicMode", "mosaic"),
        )
        if arguments.get(flag)
    ]
    # Upstream takes two flags where we have one mode; both flags together are no mode.
    return StatisticsControl(
        **options,
        weighting="inverse_variance" if arguments.get("weighted") else "none",
        error=" and ".join(modes) or "sample",
    )


def run_stats(params, results, data, found):
    """Kind "stats": `measure_statistics`."""
    for i, item in enumerate(params["items"]):
        image = data[f"in_i{i}_img"]
        mask = data.get(f"in_i{i}_mask", np.zeros(image.shape, np.int32))
        variance = data.get(f"in_i{i}_var", np.zeros(image.shape, np.float32))
        for j, arguments in enumerate(item["controls"]):
            label = f"i{i}_c{j}"
            got = found.call(
                "stats", label, results[label],
                lambda a=arguments, p=(image, mask, variance): measure_statistics(
                    *p, control=_control(a), upstream=True
                ),
            )  # fmt: skip
            if got is not None:
                _compare_statistics(i, j, got, data, found)


def _compare_statistics(i, j, got, data, found):
    large = got.value(Property.NPOINT) > 46340
    for k, name in enumerate(PROPERTIES):
        label = f"i{i}_c{j} {name}"
        value, error = data[f"out_i{i}_values"][j, k], data[f"out_i{i}_errors"][j, k]
        found.compare("stats", STATISTIC, label, got.value(name), value)
        if not (large and name in OVERFLOWING):
            found.compare("stats", STATISTIC, f"{label} error", got.error(name), error)
    for k, name in enumerate((Property.MIN, Property.MAX)):
        expected = data[f"out_i{i}_minmax"][j, k]
        found.compare("stats", STATISTIC, f"i{i}_c{j} {name}", got.value(name), expected)
    found.equal(f"i{i}_c{j} or_mask", got.or_mask, int(data[f"out_i{i}_ormask"][j]))


def run_background(params, results, data, found):
    """Kind "background": `measure_background`, drawn and approximated in several ways."""
    image = data["in_img"]
    mask = data.get("in_mask", np.zeros(image.shape, np.int32))
    variance = data.get("in_var", np.zeros(image.shape, np.float32))
    for j, config in enumerate(params["configs"]):
        label = f"c{j}"
        got = found.call(
            "background", label, results[label],
            lambda config=config: measure_background(
                image, _background_control(config), mask=mask, variance=variance,
                x0=params["x0"], y0=params["y0"], upstream=True,
            ),
        )  # fmt: skip
        if got is None:
            continue
        _compare_cells(label, got, data, found)
        images, polynomials = config.get("images", []), config.get("approx", [])
        _compare_images("background", f"{label}_", got, images, results, data, found)
        _compare_polynomials("background", f"{label}_", got, polynomials, results, data, found)


def _background_control(config):
    polynomial = None
    if "approxOrder" in config:
        polynomial = _polynomial(config["approxOrder"], config.get("approxWeighting", True))
    return BackgroundControl(
        config["nx"],
        config["ny"],
        parse_style(config.get("ctrlInterp", "AKIMA_SPLINE")),
        UndersampleStyle[config.get("ctrlUnder", "THROW_EXCEPTION")],
        Property[config["stat"]],
        _control(config["ctrl"]),
        polynomial,
    )


def _compare_cells(label, background, data, found):
    kind = "background"
    found.compare(kind, IMAGE, f"{label} cells", background.values, data[f"out_{label}_stats"])
    expected = data[f"out_{label}_stats_var"]
    found.compare(kind, IMAGE, f"{label} cell errors", background.variance, expected)
    found.compare(kind, EXACT, f"{label} xcen", background.x_centres, data[f"out_{label}_xcen"])
    found.compare(kind, EXACT, f"{label} ycen", background.y_centres, data[f"out_{label}_ycen"])


RUNNERS = {
    "approx": run_approx,
    "background": run_background,
    "from_stats": run_from_stats,
    "interp": run_interp,
    "stats": run_stats,
}
"""What runs each kind."""
