"""Namespaces: names that every process agrees on, and digests that change with the code and with nothing else."""

from __future__ import annotations

import compileall
import functools
import operator
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batche._namespace import Namespace, code_digest, declare, is_importable
from batche.errors import SignatureError

SAMPLE = '''\
def embed(texts, model="small"):
    """Every kind of constant and every kind of nested code."""
    class Scaler:
        def __init__(self, factor, unit):
            self.factor, self.unit, self.zeta, self.alpha = factor, unit, 0, 1
        def scale(self, value):
            return [self.factor * part for part in value]
    known = {"alpha", "beta", "gamma", "delta", b"x", 1.5, (2, "y"), None}
    def measure(text):
        if text in {"alpha", "beta", "gamma", "delta", b"x", 1.5, (2, "y"), None}:
            return -0.0, 1j, 10**30, "\\ud800", ...
        try:
            return len(text), f"{text!r:>10}"
        except (TypeError, ValueError) as error:
            raise LookupError from error
    return [(measure(text), Scaler(2, "m").scale([1]), (lambda: known)()) for text in texts]
'''
PRINT = "import sample; from batche._namespace import code_digest; print(code_digest(sample.embed, sample.embed).hex())"
TRACED = f"import sys; sys.settrace(lambda *_: None); import sample; sample.embed(['a']); {PRINT}"
HOT = f"import sample\nfor _ in range(10_000): sample.embed(['alpha'])\n{PRINT}"
MONITORED = f"""
import sample, sys
sys.monitoring.use_tool_id(3, "test")
sys.monitoring.register_callback(3, sys.monitoring.events.LINE, lambda *_: None)
sys.monitoring.set_events(3, sys.monitoring.events.LINE | sys.monitoring.events.CALL | sys.monitoring.events.BRANCH)
sample.embed(["alpha"])
{PRINT}"""
SPAWN = """\
import multiprocessing

from batche._namespace import declare

def embed(texts): return texts

def namespace(_=None):
    return declare(embed).settle(embed, None)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(namespace, [0]) == [namespace()] and namespace().name)
"""


def run(code: str, folder: Path, seed: str = "0") -> str:
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sample.py").write_text(SAMPLE)
    return tmp_path


@pytest.fixture
def digest(folder: Path) -> str:
    return run(PRINT, folder)


def define(source: str, monkeypatch: pytest.MonkeyPatch, name: str = "defined_here") -> types.ModuleType:
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, name, "exec"), vars(module))
    return module


def function(source: str, **scope: Any) -> Callable[..., Any]:
    exec(compile(source, "anywhere", "exec"), scope)
    made: Callable[..., Any] = scope["f"]
    return made


# The digest does not change with anything but the code.


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_the_digest_does_not_depend_on_the_hash_seed(folder: Path, digest: str, seed: str) -> None:
    assert run(PRINT, folder, seed) == digest


def test_the_digest_does_not_depend_on_the_place_in_the_file_or_the_folder(
    folder: Path, digest: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sample.py").write_text("import os\n" + "# a comment\n" * 300 + "before = 1.5\n" + SAMPLE)
    assert run(PRINT, elsewhere) == digest


def test_the_digest_is_the_same_from_compiled_files_alone(folder: Path, digest: str) -> None:
    assert compileall.compile_dir(folder, quiet=1, legacy=True)
    (folder / "sample.py").unlink()
    assert run(PRINT, folder, "5") == digest


@pytest.mark.parametrize("code", [TRACED, HOT], ids=["traced", "hot"])
def test_the_digest_does_not_depend_on_what_the_interpreter_did_to_the_bytecode(
    folder: Path, digest: str, code: str
) -> None:
    assert run(code, folder) == digest


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_the_digest_does_not_depend_on_monitoring(folder: Path, digest: str) -> None:
    assert run(MONITORED, folder) == digest


def test_the_digest_does_not_depend_on_what_the_function_is_called() -> None:
    assert code_digest(function("def f(x): return x")) == code_digest(function("def g(x): return x\nf = g"))


# It changes with the code.

BODIES = [
    "return 1",
    "return True",
    "return 1.0",
    "return 1j",
    "return 0.0",
    "return -0.0",
    "return None",
    "return ...",
    "return '1'",
    "return b'1'",
    "return (1,)",
    "return ((1,),)",
    "return 'ab', 'c'",
    "return 'a', 'bc'",
    "return x in {1, 2}",
    "return x in {1, 3}",
    "return x in {1, 2.0}",
    "return x in (1, 2)",
    "return -1",
    "return 255",
    "return 10**40",
    "return 10**40 + 1",
    "return x + 1",
    "return x - 1",
    "return x.one",
    "return x.two",
    "return len(x)",
    "return max(x)",
    "return [y for y in x]",
    "return [y + 1 for y in x]",
    "return (lambda: 1)()",
    "return (lambda: 2)()",
    "return (lambda y=1: 2)()",
    "return (lambda: (lambda: 1))()",
    "return (lambda: (lambda: 2))()",
    "class C:\n  y = 1",
    "class C:\n  y = 2",
    "class C:\n  y = True",
    "class C:\n  def g(self): self.y = 1",
    "class C:\n  def g(self): self.y = 2",
    "class C:\n  def g(self): self.z = 1",
    "yield x",
]


def test_every_difference_in_the_code_is_a_difference_in_the_digest() -> None:
    digests = {code_digest(function("def f(x):\n " + body.replace("\n", "\n "))) for body in BODIES}
    digests |= {
        code_digest(function(f"def f({parameters}): return 1")) for parameters in ("x, /", "*, x", "*x", "**x", "y")
    }
    digests.add(code_digest(function("async def f(x): return 1")))
    assert len(digests) == len(BODIES) + 6


def test_a_changed_wrapper_is_a_changed_digest() -> None:
    wrap = "def wrap(f):\n @wraps(f)\n def inner(x: int) -> int: return {}\n return inner\n@wrap\ndef f(x): return {}"
    sources = [wrap.format(outer, inner) for outer in ("f(x)", "f(x) + 1") for inner in (1, 2)]
    assert len({code_digest(function(source, wraps=functools.wraps)) for source in sources}) == 4


class Lower:
    def __call__(self, item: str) -> str:
        return item.lower()


class Upper:
    def __call__(self, item: str) -> str:
        return item.upper()


KEYS: list[Callable[..., Any] | None] = [
    None,
    len,
    str,
    str.lower,
    str.upper,
    "a".join,
    Lower(),
    Upper(),
    Lower().__call__,
    operator.itemgetter("id"),
    operator.itemgetter("name"),
    operator.attrgetter("id"),
    operator.methodcaller("get", "id"),
    functools.partial(round, ndigits=1),
    functools.partial(round, ndigits=2),
    functools.partial(Lower(), "a"),
    lambda item: item[0],
    lambda item: item[1],
    lambda item, at=0: item[at],
    lambda item, at=1: item[at],
    lambda item, *, at=1: item[at],
]


def test_every_key_function_is_a_digest_of_its_own_and_always_the_same() -> None:
    digests = [code_digest(test_a_changed_wrapper_is_a_changed_digest, key) for key in KEYS]
    assert len(set(digests)) == len(KEYS)
    assert digests == [code_digest(test_a_changed_wrapper_is_a_changed_digest, key) for key in KEYS]
    assert code_digest(Lower(), Lower()) == code_digest(Lower(), Lower())


def test_all_callables_have_a_digest() -> None:
    assert (
        len({code_digest(made) for made in (len, Lower(), Lower().__call__, functools.partial(len), staticmethod(len))})
        == 5
    )


# Names and what they are worth.

MODULE = """\
def passes(f): return f
class wrapper:
    def __init__(self, f): self.__wrapped__ = f
def f(x): return x
@wrapper
def wrapped(x): return x
@wrapper
@wrapper
def twice(x): return x
class C:
    @staticmethod
    @wrapper
    def static(x): return x
    @classmethod
    @wrapper
    def on_class(cls, x): return x
    @wrapper
    def method(self, x): return x
    def plain(self, x): return x
    class D:
        @wrapper
        def inner(self, x): return x
def make():
    def local(x): return x
    return local
local = make()
unnamed = lambda x: x
"""


def test_what_stands_at_its_name_is_importable_itself_or_under_a_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    module = define(MODULE, monkeypatch)
    assert is_importable(module.f, object())
    assert is_importable(module.wrapped.__wrapped__, module.wrapped)
    assert is_importable(module.twice.__wrapped__.__wrapped__, module.twice.__wrapped__)
    assert is_importable(module.twice.__wrapped__, module.twice)
    for wrapper in (module.C.static, vars(module.C)["on_class"].__func__, module.C.method, module.C.D.inner):
        assert is_importable(wrapper.__wrapped__, wrapper)


def test_a_wrapper_that_does_not_say_what_it_wraps_is_known_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    module = define("def f(x): return x", monkeypatch)
    decorated, opaque = module.f, object()
    monkeypatch.setattr(module, "f", opaque)
    assert is_importable(decorated, opaque)
    assert not is_importable(decorated, object())


def test_what_does_not_stand_at_its_name_is_not_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = define(MODULE, monkeypatch)
    for callable_ in (
        module.local,
        module.unnamed,
        functools.partial(module.f),
        module.C().plain,
        Lower(),
        module.make(),
    ):
        assert not is_importable(callable_, object())
    assert not is_importable(Lower().__call__, object())
    replaced = module.f
    monkeypatch.setattr(module, "f", module.unnamed)
    assert not is_importable(replaced, object())
    monkeypatch.delitem(sys.modules, "defined_here")
    assert not is_importable(module.wrapped.__wrapped__, module.wrapped)


def test_a_second_wrapper_of_an_importable_function_is_not_taken_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    module = define("def f(x): return x", monkeypatch)

    def scaled(factor: int) -> Callable[..., Any]:
        @functools.wraps(module.f)
        def inner(x: int) -> int:
            return factor * x

        return inner

    double, triple = scaled(2), scaled(3)
    assert code_digest(double) == code_digest(triple)
    assert declare(double).settle(double, None).private
    assert declare(triple).settle(triple, None).private


def test_a_public_namespace_is_its_name_and_version_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = define(MODULE, monkeypatch)
    first, second = (declare(module.f).settle(module.f, None) for _ in range(2))
    assert first == second
    assert (first.name, first.private, len(first.id), len(first.version)) == ("defined_here:f", False, 8, 17)
    assert declare(module.wrapped).settle(module.wrapped, None).id != first.id


def test_a_private_namespace_is_one_decoration_s_and_kept_by_what_inherits_it() -> None:
    unnamed = lambda x: x  # noqa: E731 - a lambda with a name is what is tested
    one, two = declare(unnamed), declare(unnamed)
    assert one.settle(unnamed, None).private
    assert one.settle(unnamed, None).id != two.settle(unnamed, None).id
    assert pickle.loads(pickle.dumps(one)).settle(unnamed, None) == one.settle(unnamed, None)


def test_a_name_is_public_wherever_the_function_stands() -> None:
    for made in (lambda x: x, functools.partial(len), Lower()):
        namespace = declare(made, name="mine").settle(made, None)
        assert (namespace.name, namespace.private) == ("mine", False)
    assert declare(len, name="mine").settle(len, None).id == declare(max, name="mine").settle(max, None).id


def test_an_object_without_a_name_is_shown_by_its_class() -> None:
    assert declare(Lower()).settle(Lower(), None).name == f"{__name__}:Lower object"


def test_a_stated_version_replaces_the_digest_and_never_equals_one() -> None:
    def version(function: Callable[..., Any], **options: Any) -> bytes:
        return declare(function, **options).private.version

    assert version(len, version="1") == version(max, version="1", key=str.lower)
    assert version(len, version="1") != version(len, version="2")
    assert version(len)[:1] != version(len, version="1")[:1]
    assert len(version(len)) == len(version(len, version="1" * 100)) == 17


@pytest.mark.parametrize("options", [{"name": 3}, {"version": 1}, {"name": ""}, {"version": ""}])
def test_names_and_versions_are_texts(options: Any) -> None:
    with pytest.raises(SignatureError, match="takes a text that is not empty"):
        declare(len, **options)


def test_namespaces_pickle() -> None:
    namespace = declare(len).private
    assert isinstance(namespace, Namespace)
    assert pickle.loads(pickle.dumps(namespace)) == namespace


def test_a_program_and_the_processes_it_spawns_use_one_namespace(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"{program.resolve()}:embed"
