import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bgmatch_dask.config import (
    BackgroundConfig,
    InputConfig,
    MatchConfig,
    RunConfig,
    StoreConfig,
    TractConfig,
    config_digest,
    describe_config,
    load_config,
)
from bgmatch_dask.errors import ConfigError

YAML = """
run: deep
tract: {label: 9813, ra: 150.1, dec: 2.2, patch_inner: [400, 300]}
background: {bin_size: 64, mask: [SAT, NO_DATA]}
reference: {visit: 1214}
match: {order: 1, write_warps: true, smoothing: 1.0e-3}
"""
TOML = """
run = "deep"
[tract]
label = "9813"
ra = 150.1
dec = 2.2
patch_inner = [400, 300]
[background]
bin_size = 64
mask = ["SAT", "NO_DATA"]
[reference]
visit = "1214"
[match]
order = 1
write_warps = true
smoothing = 1e-3
"""


def _refused(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)
    return caught.value


def _file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_no_file():
    assert load_config() == RunConfig()


@pytest.mark.parametrize("toml", ["job.toml", "job.TOML"])
def test_yaml_and_toml_say_the_same(tmp_path, toml):
    a = load_config(_file(tmp_path, "job.yaml", YAML))
    b = load_config(_file(tmp_path, toml, TOML))
    assert a == b
    assert a.tract.label == "9813"
    assert a.reference.visit == "1214"
    assert a.match.order == 1
    assert a.match.smoothing == 1e-3
    assert config_digest(a) == config_digest(b)


def test_overrides_win_over_values_and_values_over_the_file(tmp_path):
    path = _file(tmp_path, "job.yaml", YAML)
    config = load_config(
        path,
        ["background.bin_size=16", "inputs.paths=[a.fits, b.fits]"],
        {"background": {"bin_size": 32, "n_iter": 7, "n_sigma": None}, "run": "other"},
    )
    assert config.background.bin_size == 16
    assert config.background.n_iter == 7
    assert config.background.n_sigma == 3.0
    assert config.background.mask == ("SAT", "NO_DATA")
    assert config.run == "other"
    assert config.inputs.paths == ("a.fits", "b.fits")


def test_values_are_not_changed():
    values = {"store": {"url": "a"}}
    load_config(overrides=["store.url=b"], values=values)
    assert values == {"store": {"url": "a"}}


@pytest.mark.parametrize("text", ["", "# nothing\n", "background:\n#  bin_size: 64\n"])
def test_an_empty_file_or_section_means_the_defaults(tmp_path, text):
    path = _file(tmp_path, "job.yaml", text)
    assert load_config(path) == RunConfig()
    assert load_config(path, ["background.bin_size=16"]).background.bin_size == 16


@pytest.mark.parametrize(
    ("item", "near"),
    [
        ("background.bin_sise=3", "'background.bin_size'"),
        ("bin_size=3", "'background.bin_size'"),
        ("backgruond.bin_size=3", "'background'"),
        ("match.gate_rsm=3", "'match.gate_rms'"),
        ("rum=3", "'run'"),
    ],
)
def test_an_unknown_field_suggests_the_nearest_name(item, near):
    error = _refused(overrides=[item])
    assert error.code == "config-invalid"
    assert item.split("=", 1)[0].split(".")[0] in error.what
    assert f"Did you mean {near}?" in error.fix


def test_an_unknown_field_that_is_like_none_points_to_the_list():
    assert "config show" in _refused(overrides=["zzzzqqq=1"]).fix


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("background.bin_size=1", "background.bin_size"),
        ("background.bin_size=many", "background.bin_size"),
        ("background.min_frac=1.5", "background.min_frac"),
        ("background.n_sigma=.nan", "background.n_sigma"),
        ("background.mask=[SATT]", "background.mask"),
        ("coadd.mask=[SATT]", "coadd.mask"),
        ("inputs.max_megapixels=.inf", "inputs.max_megapixels"),
        ("inputs.on_bad_input=ignore", "inputs.on_bad_input"),
        ("match.order=7", "match.order"),
        ("match.order=-1", "match.order"),
        ("match.order=plane", "match.order"),
        ("run=../../etc", "run"),
        ("run=", "run"),
        ("store.chunk=0", "store.chunk"),
        ("tract.border=-1", "tract.border"),
        ("tract.dec=91", "tract.dec"),
        ("tract.label=a/b", "tract.label"),
        ("tract.patch_inner=0", "tract.patch_inner"),
        ("tract.patch_inner=[3, 0]", "tract.patch_inner"),
        ("tract.pixel_scale=.inf", "tract.pixel_scale"),
        ("tract.ra=10", "tract"),
        ("tract=3", "tract"),
    ],
)
def test_values_without_sense_are_refused_by_the_name_of_their_field(item, field):
    error = _refused(overrides=[item])
    assert error.code == "config-invalid"
    assert error.what.startswith(f"{field}: ")
    assert error.where == "command line"


@pytest.mark.parametrize("item", ["a.b", "=3", "a..b=3", ".=1", "run.x.y=[1", "store.url=[1"])
def test_an_override_that_is_none_is_refused(item):
    assert _refused(overrides=[item]).code == "config-override"


def test_an_override_does_not_go_through_a_value():
    assert _refused(overrides=["run=a", "run.x=1"]).code == "config-override"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", b"run: [1"),
        ("b.toml", b"run = "),
        ("c.yaml", b"- 1\n- 2\n"),
        ("d.yaml", b"\xff\xfe\x00"),
        ("e.yaml", b"run: !!python/object/apply:os.system [true]"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    error = _refused(path)
    assert (error.code, error.where) == ("config-unreadable", str(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert _refused(tmp_path / "no.yaml").code == "config-unreadable"
    assert _refused(tmp_path).code == "config-unreadable"


def test_one_path_needs_no_list():
    assert load_config(overrides=["inputs.paths=warps"]).inputs.paths == ("warps",)


def test_the_description_explains_every_field():
    text = describe_config(RunConfig())
    fields = [RunConfig, *(f.annotation for f in RunConfig.model_fields.values())]
    for model in fields:
        for name, info in getattr(model, "model_fields", {}).items():
            assert f"{name}:" in text
            if not hasattr(info.annotation, "model_fields"):
                assert info.description
                assert f"# {info.description}\n" in text


words = st.text(st.sampled_from(string.printable + "äσ 日'\"#:{}[]"), min_size=1, max_size=40)
jobs = st.builds(
    RunConfig,
    inputs=st.builds(
        InputConfig,
        paths=st.lists(words, max_size=40).map(tuple),
        profile=words,
        max_megapixels=st.floats(1e-9, 1e12),
    ),
    tract=st.builds(
        TractConfig,
        label=st.sampled_from(["9813", "1e3", "null", "true", "a.b", "012"]),
        ra=st.just(0.5),
        dec=st.floats(-90, 90),
        patch_inner=st.none() | st.integers(1, 9) | st.tuples(st.integers(1, 9), st.just(3)),
    ),
    store=st.builds(StoreConfig, url=words),
    background=st.builds(BackgroundConfig, mask=st.sampled_from([(), ("SAT",), ("SAT", "BAD")])),
    match=st.builds(
        MatchConfig,
        order=st.just("surface") | st.integers(0, 6),
        smoothing=st.none() | st.floats(0, 1e300),
        write_warps=st.booleans(),
    ),
)


@settings(deadline=None, max_examples=80)
@given(config=jobs)
def test_a_description_reads_back_as_the_same_configuration(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "described.yaml"
    path.write_text(describe_config(config), encoding="utf-8", newline="")
    assert load_config(path) == config
    yaml.safe_load(describe_config(config))


def test_the_digest_depends_on_values_alone():
    digest = config_digest(BackgroundConfig(), MatchConfig())
    assert digest == config_digest(BackgroundConfig(bin_size=128), MatchConfig())
    assert digest != config_digest(BackgroundConfig(bin_size=64), MatchConfig())
    assert digest != config_digest(MatchConfig(), BackgroundConfig())
    assert len(digest) == 16
