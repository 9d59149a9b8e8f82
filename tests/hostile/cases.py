"""Broken and hostile inputs: what each is, how it is made, and the code it must get."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.io import fits

MAX_MEGAPIXELS = 1.0
LIMIT_BYTES = int(16e6 * MAX_MEGAPIXELS)
FIRST_VISIT = 900


@dataclass(frozen=True)
class Case:
    """One bad input."""

    name: str
    what: str
    code: str
    make: Callable[[Path, Path], None]
    """Takes the path to write and a good warp."""


CASES: list[Case] = []


def case(name: str, what: str, code: str):
    def register(make):
        CASES.append(Case(name, what, code, make))
        return make

    return register


def visit_of(path: Path) -> int:
    return FIRST_VISIT + [c.name for c in CASES].index(path.name)


def load(good: Path, path: Path) -> fits.HDUList:
    with fits.open(good, memmap=False) as hdus:
        copy = fits.HDUList([hdu.copy() for hdu in hdus])
    copy[0].header["HIERARCH LSST BUTLER DATAID VISIT"] = visit_of(path)
    copy[0].header["EXPID"] = visit_of(path)
    for hdu in copy:
        for card in ("CHECKSUM", "DATASUM"):
            hdu.header.remove(card, ignore_missing=True)
    return copy


def edited(name: str, what: str, code: str):
    """Register a case that changes the HDUs of a good warp."""

    def register(change):
        @case(name, what, code)
        def make(path: Path, good: Path) -> None:
            hdus = load(good, path)
            result = change(hdus)
            (hdus if result is None else result).writeto(path, output_verify="ignore")

        return change

    return register


def raw(name: str, what: str, code: str):
    """Register a case that changes the bytes of a sound warp."""

    def register(change):
        @case(name, what, code)
        def make(path: Path, good: Path) -> None:
            stream = BytesIO()
            hdus = load(good, path)
            for hdu in hdus:
                hdu.add_checksum()
            hdus.writeto(stream)
            path.write_bytes(change(stream.getvalue()))

        return change

    return register


def compressed(name: str, what: str, code: str, kind="GZIP_2", tile=None):
    """Register a case that changes the bytes of a sound compressed warp."""

    def register(change):
        @case(name, what, code)
        def make(path: Path, good: Path) -> None:
            hdus = load(good, path)
            out = fits.HDUList([hdus[0]])
            for hdu in hdus[1:]:
                shape = tile or (1, hdu.shape[1])
                packed = fits.CompImageHDU(
                    hdu.data, hdu.header, hdu.name, kind, tile_shape=shape, quantize_level=0
                )
                out.append(packed)
            stream = BytesIO()
            out.writeto(stream)
            path.write_bytes(change(stream.getvalue()))

        return change

    return register


def card(data: bytes, key: str, value: str, *, which: int = 0) -> bytes:
    """Replace the value of the n-th card of a name."""
    places = [m.start() for m in re.finditer(key.ljust(8).encode() + b"= ", data)]
    at = places[which]
    return data[:at] + f"{key:8}= {value:>20}".ljust(80).encode() + data[at + 80 :]


# --- bytes that are no FITS file ---------------------------------------------------------------
case("empty.fits", "no bytes", "fits-truncated")(lambda p, g: p.write_bytes(b""))
case("garbage.fits", "random bytes", "fits-unreadable")(
    lambda p, g: p.write_bytes(np.random.default_rng(1).bytes(20000))
)
case("page.fits", "an HTML page of a server's error", "fits-unreadable")(
    lambda p, g: p.write_bytes(b"<html><script>alert(1)</script></html>" * 200)
)
case("pickle.fits", "a pickle that would run code", "fits-unreadable")(
    lambda p, g: p.write_bytes(pickle.dumps(os.getcwd) * 200)
)


@case("zip.fits", "a zip archive with a path that climbs", "fits-unreadable")
def _zip(path, good):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.txt", "x" * 5000)


@case("sparse.fits", "a file of 1 TB without blocks", "too-large")
def _sparse(path, good):
    path.touch()
    os.truncate(path, 10**12)


case("link.fits", "a link to nothing", "path-unreadable")(lambda p, g: p.symlink_to("nowhere.fits"))
case("folder.fits", "a folder with the name of a file", "path-unreadable")(lambda p, g: p.mkdir())
case("pipe.fits", "a pipe that nobody writes", "path-unreadable")(lambda p, g: os.mkfifo(p))
case("device.fits", "a link to an endless device", "path-unreadable")(
    lambda p, g: p.symlink_to("/dev/zero")
)
case("new\nline.fits", "a name with a line break", "path-unusable")(
    lambda p, g: p.write_bytes(b"x")
)
case("red\x1b[31m.fits", "a name that colours terminals", "path-unusable")(
    lambda p, g: p.write_bytes(b"x")
)
case(os.fsdecode(b"not\xfftext.fits"), "a name that is no UTF-8", "path-unusable")(
    lambda p, g: p.write_bytes(b"x")
)

# --- files that end too early or go on too long, flipped bits ----------------------------------
raw("half.fits", "the first half of a file", "fits-truncated")(lambda d: d[: len(d) // 2])
raw("nearly.fits", "99.9 % of a file", "fits-truncated")(lambda d: d[: int(len(d) * 0.999)])
raw("header.fits", "half of the first header", "fits-truncated")(lambda d: d[:1500])
raw("tail.fits", "something after the last HDU", "fits-truncated")(lambda d: d + b"tail" * 1000)
raw("noend.fits", "a header without END", "fits-truncated")(
    lambda d: d.replace(b"END".ljust(80), b" " * 80)
)
raw("flip.fits", "one bit flipped in plain pixels", "fits-checksum")(
    lambda d: d[: len(d) // 3] + bytes([d[len(d) // 3] ^ 1]) + d[len(d) // 3 + 1 :]
)


@compressed("flipgz.fits", "a byte changed in a gzipped row", "fits-unreadable")
def _flip_gzip(data):
    at = data.index(b"\x1f\x8b\x08", 5000) + 20
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@case("short.fits.gz", "a gzip file that ends too early", "fits-unreadable")
def _short_gzip(path, good):
    data = gzip.compress(good.read_bytes(), mtime=0)
    path.write_bytes(data[: len(data) // 2])


case("junk.fits.gz", "a gzip file of no FITS file", "fits-unreadable")(
    lambda p, g: p.write_bytes(gzip.compress(b"junk" * 5000))
)

# --- claims beyond the limits ------------------------------------------------------------------
raw("huge.fits", "an image that claims 200 000 x 200 000 pixels", "too-large")(
    lambda d: card(card(d, "NAXIS1", "200000"), "NAXIS2", "200000")
)
compressed("hugez.fits", "a compressed image that claims 900 000 x 900 000", "too-large")(
    lambda d: card(card(d, "ZNAXIS1", "900000"), "ZNAXIS2", "900000")
)
compressed("hugetile.fits", "tiles of 2 000 000 000 pixels", "too-large")(
    lambda d: card(d, "ZTILE1", "2000000000")
)


@case("bomb.fits.gz", "300 kB that inflate to 300 MB", "too-large")
def _bomb(path, good):
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(good.read_bytes())
        for _ in range(300):
            stream.write(b"\0" * 1_000_000)


@case("swollen.fits.gz", "a file that inflates to nearly the limit, mostly zeros", "fits-truncated")
def _swollen(path, good):
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(good.read_bytes())
        stream.write(b"\0" * (LIMIT_BYTES - good.stat().st_size - 1_200_000))


@compressed("tilebomb.fits", "a gzipped tile that inflates to 200 MB", "too-large", tile=(2, 160))
def _tile_bomb(data):
    bomb = gzip.compress(b"\0" * 200_000_000, compresslevel=9, mtime=0)
    table = fits.open(BytesIO(data), disable_image_compression=True)
    header = table[1].header
    start = table[1].fileinfo()["datLoc"]
    rows = header["NAXIS1"] * header["NAXIS2"]
    span = table[1].fileinfo()["datSpan"]
    table.close()
    whole = bytearray(data[start : start + rows] + bomb)
    whole[:8] = np.array([len(bomb), 0], ">i4").tobytes()
    whole += b"\0" * (-len(whole) % 2880)
    head = card(data[:start], "PCOUNT", str(len(bomb)))
    return head + bytes(whole) + data[start + span :]


@raw("cards.fits", "a header of 120 000 cards", "too-large")
def _many_cards(data):
    at = data.index(b"END".ljust(80))
    return data[:at] + b"COMMENT".ljust(80) * 36 * 3400 + data[at:]


@raw("hdus.fits", "5000 HDUs", "too-large")
def _many_hdus(data):
    header = b"XTENSION= 'IMAGE   '".ljust(80) + b"BITPIX  =                    8".ljust(80)
    header += b"NAXIS   =                    0".ljust(80) + b"END".ljust(80)
    return data + header.ljust(2880) * 5000


# --- headers that make no sense ----------------------------------------------------------------
raw("negative.fits", "a negative length of an axis", "fits-unreadable")(
    lambda d: card(d, "NAXIS1", "-160")
)
raw("axes.fits", "999 axes", "fits-unreadable")(lambda d: card(d, "NAXIS", "999", which=1))
raw("textaxis.fits", "a length that is text", "fits-unreadable")(
    lambda d: card(d, "NAXIS1", "'many'")
)
raw("pcount.fits", "a negative PCOUNT", "fits-unreadable")(lambda d: card(d, "PCOUNT", "-5000"))
raw("bitpix.fits", "BITPIX 17", "fits-unreadable")(lambda d: card(d, "BITPIX", "17", which=1))
compressed("ztile.fits", "tiles of no pixels", "fits-unreadable")(lambda d: card(d, "ZTILE1", "0"))
compressed("coding.fits", "an unknown coding of tiles", "compression-unsupported")(
    lambda d: card(d, "ZCMPTYPE", "'ZIP_9   '")
)
compressed("hcompress.fits", "a coding whose decoder trusts sizes", "compression-unsupported")(
    lambda d: card(d, "ZCMPTYPE", "'HCOMPRESS_1'")
)


@compressed("heap.fits", "a row whose bytes lie outside the table", "fits-unreadable")
def _heap(data):
    with fits.open(BytesIO(data), disable_image_compression=True) as table:
        start = table[1].fileinfo()["datLoc"]
    return data[:start] + np.array([2**30, 2**30], ">i4").tobytes() + data[start + 8 :]


# --- planes ------------------------------------------------------------------------------------
for _plane in ("IMAGE", "MASK", "VARIANCE"):

    @edited(f"no{_plane.lower()}.fits", f"no {_plane} HDU", "plane-missing")
    def _missing(hdus, plane=_plane):
        del hdus[plane]


@edited("shapes.fits", "planes of different shapes", "plane-shape")
def _shapes(hdus):
    hdus["MASK"].data = hdus["MASK"].data[:-1]


@edited("cube.fits", "an image of three axes", "plane-shape")
def _cube(hdus):
    hdus["IMAGE"].data = hdus["IMAGE"].data[np.newaxis]


@edited("int16.fits", "an image of 16-bit integers", "plane-dtype")
def _int16(hdus):
    hdus["IMAGE"].data = np.zeros(hdus["IMAGE"].shape, np.int16)


@edited("floatmask.fits", "a mask of floats", "plane-dtype")
def _float_mask(hdus):
    hdus["MASK"].data = hdus["MASK"].data.astype(np.float32)


@edited("nonodata.fits", "no MP_NO_DATA card", "mask-plane-missing")
def _no_nodata(hdus):
    del hdus["MASK"].header["MP_NO_DATA"]


@edited("bit77.fits", "NO_DATA is bit 77", "mask-plane-missing")
def _bit77(hdus):
    hdus["MASK"].header["MP_NO_DATA"] = 77


# --- place and labels --------------------------------------------------------------------------
@edited("nowcs.fits", "no celestial WCS", "wcs-missing")
def _no_wcs(hdus):
    for key in ("CTYPE1", "CTYPE2"):
        hdus["IMAGE"].header[key] = "LINEAR"


@edited("othertract.fits", "the WCS of another tract", "wcs-mismatch")
def _other_tract(hdus):
    hdus["IMAGE"].header["CRVAL1"] += 1.5


@edited("flipped.fits", "a flipped axis", "wcs-mismatch")
def _flipped(hdus):
    header = hdus["IMAGE"].header
    key = "CD1_1" if "CD1_1" in header else "CDELT1"
    header[key] = -header[key]


@edited("onepixel.fits", "a WCS that is off by one pixel", "wcs-mismatch")
def _one_pixel(hdus):
    hdus["IMAGE"].header["CRPIX1"] += 1


@edited("textwcs.fits", "a WCS number that is text", "wcs-unusable")
def _text_wcs(hdus):
    hdus["IMAGE"].header["CRVAL1"] = "north"


@edited("noxy0.fits", "no CRVAL1A", "xy0-missing")
def _no_xy0(hdus):
    del hdus["IMAGE"].header["CRVAL1A"]


@edited("ltv.fits", "LTV1 contradicts CRVAL1A", "xy0-mismatch")
def _ltv(hdus):
    hdus["IMAGE"].header["LTV1"] = 7.0


@edited("halfpixel.fits", "XY0 in the middle of a pixel", "xy0-mismatch")
def _half_pixel(hdus):
    header = hdus["IMAGE"].header
    header["CRVAL1A"] += 0.5
    header["LTV1"] = -header["CRVAL1A"]


def _moved(hdus, step):
    header = hdus["IMAGE"].header
    header["CRVAL1A"] += step
    header["LTV1"] = -header["CRVAL1A"]
    header["CRPIX1"] -= step


edited("faraway.fits", "a warp a billion pixels away", "outside-tract")(
    lambda hdus: _moved(hdus, 1e9)
)
edited("shifted.fits", "a warp between two patches", "box-unfit")(lambda hdus: _moved(hdus, 37.0))
edited("infinite.fits", "XY0 of 1e300", "xy0-mismatch")(lambda hdus: _moved(hdus, 1e300))


@edited("size.fits", "a warp of another size", "box-unfit")
def _size(hdus):
    for hdu in hdus[1:]:
        hdu.data = hdu.data[:50, :70]


def _visit(hdus, label):
    hdus[0].header["HIERARCH LSST BUTLER DATAID VISIT"] = label
    hdus[0].header["EXPID"] = label


edited("climb.fits", "a visit called ../../x", "label-unusable")(
    lambda hdus: _visit(hdus, "../../x")
)
edited("long.fits", "a visit of 300 characters", "label-unusable")(
    lambda hdus: _visit(hdus, "v" * 300)
)


@raw("control.fits", "a visit with control characters", "fits-unreadable")
def _control(data):
    at = data.index(b"HIERARCH LSST BUTLER DATAID VISIT")
    text = b"HIERARCH LSST BUTLER DATAID VISIT = 'a\x1b[2Jb'".ljust(80)
    data = data[:at] + text + data[at + 80 :]
    return data.replace(b"CHECKSUM", b"COMMENT ", 1).replace(b"DATASUM ", b"COMMENT ", 1)


@edited("novisit.fits", "no visit anywhere", "visit-missing")
def _no_visit(hdus):
    for key in ("LSST BUTLER DATAID VISIT", "EXPID"):
        hdus[0].header.remove(key, ignore_missing=True)


# --- pixels ------------------------------------------------------------------------------------
@edited("nounit.fits", "no BUNIT", "unit-unknown")
def _no_unit(hdus):
    del hdus["IMAGE"].header["BUNIT"]


@edited("adu.fits", "BUNIT adu", "unit-unknown")
def _adu(hdus):
    hdus["IMAGE"].header["BUNIT"] = "adu"


@edited("allnan.fits", "an image of NaN", "no-data")
def _all_nan(hdus):
    hdus["IMAGE"].data[:] = np.nan


for _name, _value in (("infvar", np.inf), ("zerovar", 0.0), ("negvar", -1.0), ("nanvar", np.nan)):

    @edited(f"{_name}.fits", f"a variance of {_value}", "no-data")
    def _variance(hdus, value=_value):
        hdus["VARIANCE"].data[:] = value


@edited("masked.fits", "NO_DATA everywhere", "no-data")
def _all_masked(hdus):
    hdus["MASK"].data[:] |= 1 << hdus["MASK"].header["MP_NO_DATA"]


@edited("bscale.fits", "BSCALE that is text", "fits-unreadable")
def _bscale(hdus):
    hdus["IMAGE"].header["BSCALE"] = "big"


@case("zz_copy.fits", "other pixels for a visit and patch that exist", "duplicate-unit")
def _copy(path, good):
    with fits.open(good, memmap=False) as hdus:
        hdus["IMAGE"].data[3, 3] += 1
        hdus["IMAGE"].add_checksum()
        hdus.writeto(path)
