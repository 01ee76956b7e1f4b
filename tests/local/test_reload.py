"""Manifest files followed for real: saved half-way, renamed, emptied, broken, gone and back."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local import reload
from local.reload import AWAY_SECONDS, Manifests, manifest_files
from local.store import Raw, Store
from mesh.errors import InvalidInput
from mesh.objects import Key


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """Manifests over a real directory, with a list of pods in place of the engine's."""

    def __init__(
        self,
        *paths: Path,
        reserved: frozenset[tuple[str, Key]] = frozenset(),
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        numbers = itertools.count(1)
        self.store = Store(uid=lambda: f"uid-{next(numbers)}", now=lambda: "2026-01-01T00:00:00Z")
        self.pods: dict[Key, Raw] = {}
        self.said: list[str] = []
        self.clock = Clock()
        self.manifests = Manifests(
            paths,
            self.store,
            create_pod=lambda raw: self.pods.update({Key(raw["metadata"]["namespace"], raw["metadata"]["name"]): raw}),
            remove_pod=lambda key: self.pods.pop(key),
            say=self.said.append,
            reserved=reserved,
            monotonic=monotonic or self.clock,
        )

    def load(self) -> bool:
        return self.manifests.load()

    def load_later(self) -> bool:
        self.load()
        self.clock.now += AWAY_SECONDS
        return self.load()

    def values(self, kind: str = "ConfigMap") -> dict[str, Any]:
        return {raw["metadata"]["name"]: raw.get("data") for raw in self.store.items(kind)}


def config(name: str, value: str = "v") -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: {value}\n"


def service(name: str, **spec: str) -> str:
    lines = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    ports = "  ports:\n  - port: 80\n"
    return f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n{lines}{ports}"


def test_files_of_a_directory_and_files_named(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "d.yaml~"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub.yaml").mkdir()
    assert [file.name for file in manifest_files([tmp_path])] == ["a.yml", "b.yaml", "c.json"]
    assert next(file.name for file in manifest_files([tmp_path / "notes.txt", tmp_path])) == "notes.txt"
    assert len(manifest_files([tmp_path, tmp_path / "b.yaml", tmp_path])) == 3


def test_missing_empty_and_special_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^-f: there is no file or directory .*/none \(check the path\)"):
        manifest_files([tmp_path / "none"])
    with pytest.raises(InvalidInput, match=r"no manifest in .* \(files must end in \.yaml"):
        manifest_files([tmp_path])
    with pytest.raises(InvalidInput, match="neither a file nor a directory"):
        manifest_files([Path("/dev/null")])
    with pytest.raises(InvalidInput):
        World(tmp_path).load()


def test_a_change_reaches_the_store_and_nothing_else_does(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(config("one") + "---\n" + config("two"))
    world = World(tmp_path)
    assert world.load()
    assert world.values() == {"one": {"key": "v"}, "two": {"key": "v"}}
    version = world.store.version
    assert not world.load()
    assert world.store.version == version
    file.write_text(config("one", "new") + "---\n" + config("two"))
    assert world.load()
    assert world.store.version == version + 1


BROKEN = ["key: [", "\tkey: v", "{{ .Values.x }}", "a: b: c", "kind: ConfigMap\nkind: Secret\n"]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_document_keeps_its_last_good_version_and_the_rest_goes_on(tmp_path: Path, broken: str) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    file.write_text(config("one") + "---\n" + config("two"))
    other.write_text(config("three"))
    world = World(tmp_path)
    world.load()
    file.write_text(config("one", "new") + "---\n" + broken)
    other.write_text(config("three", "new"))
    world.load_later()
    assert world.values() == {"one": {"key": "new"}, "two": {"key": "v"}, "three": {"key": "new"}}
    (problem,) = world.manifests.problems
    assert problem.startswith(f"{file}:")
    assert problem in world.said
    file.write_text(config("one", "new"))
    world.load_later()
    assert world.manifests.problems == ()
    assert "two" not in world.values()


def test_a_file_broken_from_the_start_keeps_out_only_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("one") + "---\nkey: [\n---\n" + config("two"))
    world = World(tmp_path)
    world.load()
    assert set(world.values()) == {"one", "two"}


def test_an_object_that_becomes_wrong_keeps_its_last_good_version(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(service("web", type="ClusterIP"))
    world = World(tmp_path)
    world.load()
    file.write_text(service("web", type="Cluster"))
    world.load_later()
    (raw,) = world.store.items("Service")
    assert raw["spec"]["type"] == "ClusterIP"
    assert world.manifests.problems == (
        f"{file}:6: Service default/web: spec.type: 'Cluster' is not one of ClusterIP, NodePort, LoadBalancer, "
        "ExternalName (use one of them)",
    )


def test_a_problem_is_said_once_and_again_after_it_was_mended(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    world = World(tmp_path)
    for text in (BROKEN[0], BROKEN[0], config("one"), BROKEN[0]):
        file.write_text(text)
        world.load()
    assert len(world.said) == 2


def test_emptied_or_renamed_for_a_moment_removes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(config("one"))
    world = World(tmp_path)
    world.load()
    file.write_text("")
    assert not world.load()
    file.rename(tmp_path / "a.yaml~")
    world.clock.now += AWAY_SECONDS / 2
    assert not world.load()
    file.write_text(config("one", "new"))
    world.clock.now += AWAY_SECONDS
    world.load()
    assert world.values() == {"one": {"key": "new"}}


@pytest.mark.parametrize("how", [lambda file: file.write_text(""), lambda file: file.unlink()])
def test_what_stays_away_is_removed(tmp_path: Path, how: Callable[[Path], object]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(config("one"))
    (tmp_path / "b.yaml").write_text(config("two"))
    world = World(tmp_path)
    world.load()
    how(file)
    assert world.load_later()
    assert set(world.values()) == {"two"}


def test_a_path_of_f_that_goes_away_keeps_everything_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text(config("one"))
    world = World(folder)
    world.load()
    folder.rename(tmp_path / "elsewhere")
    world.load_later()
    assert set(world.values()) == {"one"}
    assert "what it held stays in force" in world.manifests.problems[0]
    (tmp_path / "elsewhere").rename(folder)
    world.load_later()
    assert world.manifests.problems == ()
    assert set(world.values()) == {"one"}


def test_other_programs_yaml_in_a_directory_is_named_and_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("one"))
    (tmp_path / "values.yaml").write_text("image: x\nreplicas: 3\n")
    world = World(tmp_path)
    world.load()
    assert world.manifests.problems == ()
    assert world.said == [f"{tmp_path}/values.yaml:1: not a Kubernetes object: ignored"]
    named = World(tmp_path / "values.yaml")
    named.load()
    assert len(named.manifests.problems) == 1


def test_a_file_that_is_no_text_or_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    world = World(tmp_path)
    world.load()
    assert world.manifests.problems == (f"{tmp_path}/a.yaml: is not UTF-8 text (save it as UTF-8)",)


POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: {image}\n"


def test_pods_go_to_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(POD.format(image="one"))
    (tmp_path / "b.yaml").write_text(config("two"))
    world = World(tmp_path)
    world.load()
    file.write_text(POD.format(image="two"))
    world.load()
    assert world.pods[Key("default", "p")]["spec"]["containers"][0]["image"] == "two"
    file.unlink()
    world.load_later()
    assert world.pods == {}


def test_a_service_keeps_its_address_unless_the_manifest_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(service("web"))
    world = World(tmp_path)
    world.load()
    stored = world.store.items("Service")[0]
    world.store.put({**stored, "spec": {**stored["spec"], "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"]}})
    file.write_text(service("web", type="LoadBalancer"))
    world.load()
    assert world.store.items("Service")[0]["spec"]["clusterIP"] == "10.96.1.1"
    file.write_text(service("web", clusterIP="None"))
    world.load()
    file.write_text(service("web"))
    world.load()
    assert "clusterIP" not in world.store.items("Service")[0]["spec"]


def test_the_engines_own_objects_are_neither_changed_nor_removed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    own = ("Namespace", Key("", "istio-system"))
    file.write_text("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: istio-system\n---\n" + config("one"))
    world = World(tmp_path, reserved=frozenset((own,)))
    world.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})
    world.load()
    file.write_text(config("one"))
    world.load_later()
    assert world.store.get(*own) is not None


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Callable[..., tuple[World, Callable[[int], list[Path]]]]]:
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def follow(*paths: Path) -> tuple[World, Callable[[int], list[Path]]]:
        world = World(*paths, monotonic=time.monotonic)
        world.load()
        seen: list[list[Path]] = []
        came = threading.Semaphore(0)

        def note(_: object, files: list[Path]) -> None:
            seen.append(files)
            came.release()

        def wait(index: int) -> list[Path]:
            while len(seen) <= index:
                assert came.acquire(timeout=60)
            return seen[index]

        thread = threading.Thread(target=world.manifests.follow, args=(note, stop))
        thread.start()
        threads.append(thread)
        return world, wait

    yield follow
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_file_that_editors_replace_by_renaming_is_followed(tmp_path: Path, following: Any) -> None:
    file = tmp_path / "a.manifest"
    file.write_text(config("one", "0"))
    world, wait = following(file)
    for number in range(1, 4):
        fresh = tmp_path / "fresh"
        fresh.write_text(config("one", f"n{number}"))
        fresh.rename(file)
        assert wait(number - 1) == [file]
        assert world.values() == {"one": {"key": f"n{number}"}}


def test_a_directory_that_is_replaced_is_followed(tmp_path: Path, following: Any) -> None:
    folder, other = tmp_path / "manifests", tmp_path / "other"
    for place, value in ((folder, "old"), (other, "new")):
        place.mkdir()
        (place / "a.yaml").write_text(config("one", value))
    world, wait = following(folder)
    folder.rename(tmp_path / "away")
    other.rename(folder)
    wait(0)
    assert world.values() == {"one": {"key": "new"}}
    (folder / "b.yaml").write_text(config("two"))
    wait(1)
    assert set(world.values()) == {"one", "two"}
    (folder / "a.yaml").unlink()
    assert wait(2) == [folder / "a.yaml"]
    assert set(world.values()) == {"two"}


def test_a_file_that_is_replaced_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the look at its state, before its content: at the next look nothing of it is new."""
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(config("one"))
    second.write_text(config("two"))
    world, named = World(tmp_path), list[list[Path]]()
    world.load()
    state_of = reload._state

    def state(path: Path) -> tuple[int, int, int]:
        found = state_of(path)
        if path == first and world.values()["one"] == {"key": "v"}:
            first.write_text(config("one", "new"))
        return found

    monkeypatch.setattr(reload, "_state", state)
    second.write_text(config("two", "new"))
    world.manifests._load_again([second], lambda _, files: named.append(files))
    assert world.values() == {"one": {"key": "new"}, "two": {"key": "new"}}
    assert named == [[first, second]]
    world.manifests._load_again([first], lambda _, files: named.append(files))
    assert len(named) == 1
