"""The command that matches single files, the older way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bgmatch_dask.cli.exits import finish, print_json, reported
from bgmatch_dask.cli.options import Json, Quiet

if TYPE_CHECKING:
    from bgmatch_dask.background.per_warp import PerWarpConfig
    from bgmatch_dask.pipeline.match_files import FileMatches, MatchedFile

__all__ = ("match_warps",)

Statistic = Literal["MEAN", "MEDIAN", "MEANCLIP"]
Undersample = Literal["REDUCE_INTERP_ORDER", "THROW_EXCEPTION", "INCREASE_NXNYSAMPLE"]
Interpolation = Literal["CONSTANT", "LINEAR", "NATURAL_SPLINE", "AKIMA_SPLINE"]
Weights = Literal["inverse_variance", "inverse_sigma", "none"]


def match_warps(
    reference: Annotated[str, typer.Argument(help="File to match to.", metavar="REF")],
    inputs: Annotated[list[str], typer.Argument(help="Files to match.", metavar="SCI...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    profile: Annotated[
        str,
        typer.Option(
            "--profile", "-p", help="Reader profile: lsst, 2mass, sdss, generic or a file."
        ),
    ] = "lsst",
    polynomial: Annotated[
        bool, typer.Option("--polynomial/--spline", help="Kind of the model.")
    ] = False,
    order: Annotated[int, typer.Option("--order", help="Order of a polynomial.")] = 8,
    weighting: Annotated[
        Weights, typer.Option("--weighting", help="Weight of a cell in a polynomial fit.")
    ] = "inverse_variance",
    bin_size: Annotated[int, typer.Option("--bin-size", help="Size of a cell [pixels].")] = 256,
    statistic: Annotated[Statistic, typer.Option("--statistic", help="Value of a cell.")] = "MEAN",
    interpolation: Annotated[
        Interpolation, typer.Option("--interpolation", help="Interpolation of a spline.")
    ] = "AKIMA_SPLINE",
    undersample: Annotated[
        Undersample, typer.Option("--undersample", help="What to do with too few cells.")
    ] = "REDUCE_INTERP_ORDER",
    mask: Annotated[
        list[str] | None,
        typer.Option("--mask", help="Mask plane to leave out, may be repeated; default: LSST's."),
    ] = None,
    n_sigma: Annotated[float, typer.Option("--n-sigma", help="Threshold of clips [sigma].")] = 3.0,
    n_iter: Annotated[int, typer.Option("--n-iter", help="Number of clips.")] = 2,
    outlier_sigma: Annotated[
        float | None,
        typer.Option("--outlier-sigma", help="Leave out trails and transients beyond this."),
    ] = None,
    max_ratio: Annotated[
        float, typer.Option("--max-ratio", help="Gate: largest matchedMSE/diffImVar.")
    ] = 1.1,
    max_rms: Annotated[
        float, typer.Option("--max-rms", help="Gate: largest fitRMS [image unit].")
    ] = 1.0,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="With the faults of the upstream task, to compare.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a figure of the fits (PNG).")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Match files to the background of REF, each alone: warp by warp, without a store."""
    with reported():
        from bgmatch_dask.background.per_warp import WarpGate
        from bgmatch_dask.pipeline.match_files import match_files
        from bgmatch_dask.warps.profile import load_profile

        options: dict[str, Any] = {
            "use_polynomial": polynomial,
            "order": order,
            "weighting": weighting,
            "bin_size": bin_size,
            "statistic": statistic,
            "interpolation": interpolation,
            "undersample": undersample,
            "n_sigma": n_sigma,
            "n_iter": n_iter,
            "outlier_sigma": outlier_sigma,
        }
        result = match_files(
            reference,
            inputs,
            out,
            load_profile(profile),
            config=_config(options, mask),
            gate=WarpGate(max_ratio, max_rms),
            upstream=upstream,
            on_file=None if quiet else _tell,
        )
        if plot is not None:
            _write_plot(plot, result)
        if json:
            print_json(_facts(result, plot))
        else:
            _print_table(result, plot)
    finish(len(result.failed))


def _config(options: dict[str, Any], mask: list[str] | None) -> PerWarpConfig:
    from bgmatch_dask.background.per_warp import PerWarpConfig
    from bgmatch_dask.numerics.chebyshev import Weighting
    from bgmatch_dask.numerics.interpolation import InterpStyle
    from bgmatch_dask.numerics.rendering import UndersampleStyle
    from bgmatch_dask.numerics.statistics import Property

    options |= {
        "weighting": Weighting(options["weighting"]),
        "statistic": Property(options["statistic"]),
        "interpolation": InterpStyle[options["interpolation"]],
        "undersample": UndersampleStyle[options["undersample"]],
    }
    if mask:
        options["mask"] = tuple(mask)
    return PerWarpConfig(**options)


def _tell(path: str) -> None:
    sys.stderr.write(f"match: {path}\n")


def _write_plot(path: Path, result: FileMatches) -> None:
    from bgmatch_dask.report.warp_fits import warp_fits_figure

    rows = [(Path(m.source).name, m.model, m.figures) for m in result.matched]
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(warp_fits_figure(rows, result.unit))


def _facts(result: FileMatches, plot: Path | None) -> dict[str, Any]:
    return {
        "reference": result.reference,
        "unit": result.unit,
        "matched": [_row(match) for match in result.matched],
        "failed": [{"source": r.source, "code": r.code, "detail": r.detail} for r in result.failed],
        "plot": str(plot) if plot is not None and result.matched else None,
    }


def _row(match: MatchedFile) -> dict[str, Any]:
    return {
        "source": match.source,
        "image": str(match.image),
        "offset": str(match.offset),
        "fit_rms": match.figures.fit_rms,
        "matched_mse": match.figures.matched_mse,
        "difference_variance": match.figures.difference_variance,
        "ratio": match.figures.ratio,
        "coverage": match.figures.coverage,
        "gate": "pass" if match.decision.passed else "fail",
        "reasons": list(match.decision.reasons),
    }


def _print_table(result: FileMatches, plot: Path | None) -> None:
    print(f"reference {result.reference} [{result.unit}]")
    names = [Path(match.source).name for match in result.matched]
    width = max([4, *map(len, names)])
    print(
        f"{'file':<{width}} {'fitRMS':>10} {'matchedMSE':>11} {'diffImVar':>10} {'ratio':>7} "
        f"{'measured':>8}  gate"
    )
    for name, match in zip(names, result.matched, strict=True):
        row, reasons = match.figures, ", ".join(match.decision.reasons)
        print(
            f"{name:<{width}} {row.fit_rms:10.4g} {row.matched_mse:11.5g} "
            f"{row.difference_variance:10.5g} {row.ratio:7.4f} {row.coverage:8.0%}  "
            + ("pass" if match.decision.passed else f"fail: {reasons}")
        )
    for rejected in result.failed:
        print(f"failed: {rejected.source}: [{rejected.code}] {rejected.detail}")
    if plot is not None and result.matched:
        print(f"plot: {plot}")
