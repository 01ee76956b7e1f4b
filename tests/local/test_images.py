"""The images file: names, patterns, commands, and errors that say what to write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from local.images import Images, command_line, full_name, load_images, with_working_directory
from mesh.errors import InvalidInput, NotFound

POD = {"metadata": {"name": "p", "namespace": "shop"}}


def container(image: str, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": image, **more}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.2", "docker.io/library/nginx:1.2"),
        ("istio/ratings:1", "docker.io/istio/ratings:1"),
        ("docker.io/istio/ratings:1", "docker.io/istio/ratings:1"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("registry.local:5000/a/b", "registry.local:5000/a/b:latest"),
        ("a/b@sha256:00", "docker.io/a/b@sha256:00"),
        ("istio/*", "docker.io/istio/*"),
    ],
)
def test_full_names(image: str, name: str) -> None:
    assert full_name(image) == name


def write(folder: Path, text: str) -> Images:
    file = folder / "images.yaml"
    file.write_text(text)
    return load_images(file)


def test_an_entry_gives_command_folder_and_environment(tmp_path: Path) -> None:
    (tmp_path / "apps").mkdir()
    images = write(
        tmp_path,
        """
        images:
        - {match: "istio/ratings:*", command: [python, app.py], args: ["9080"], env: {A: 1}, workingDir: apps, user: 7}
        - {match: "*/ratings:*", command: [./run.sh]}
        """,
    )
    found = images.find(POD, container("docker.io/istio/ratings:1.20"))
    assert command_line(found, container("x")) == [sys.executable, "app.py", "9080"]
    assert (found.env["A"], found.directory, found.user) == ("1", str(tmp_path / "apps"), 7)
    other = images.find(POD, container("example.com/ratings:1"))
    assert command_line(other, container("x")) == [str(tmp_path / "run.sh")]
    assert with_working_directory(other, container("x", workingDir="/data")).directory == "/data"


def test_command_and_args_override_as_in_kubernetes(tmp_path: Path) -> None:
    images = write(tmp_path, 'images: [{match: "a:*", command: [run, it], args: [default]}]')
    image = images.find(POD, container("a"))
    assert command_line(image, container("a")) == ["run", "it", "default"]
    assert command_line(image, container("a", args=["x"])) == ["run", "it", "x"]
    assert command_line(image, container("a", command=["c"])) == ["c"]
    assert command_line(image, container("a", command=["c"], args=["x"])) == ["c", "x"]


def test_heddles_own_image_is_known_and_brings_its_commands() -> None:
    image = Images().find(POD, container("docker.io/heddle/heddle:0.1.0"))
    assert image.env["PATH"].startswith(f"{sys.prefix}/bin:")
    assert command_line(image, container("x", command=["heddle-agent"])) == ["heddle-agent"]
    with pytest.raises(InvalidInput, match="no command"):
        command_line(image, container("x"))


def test_no_entry_names_pod_container_image_and_lines_to_add(tmp_path: Path) -> None:
    images = write(tmp_path, "images: []")
    with pytest.raises(NotFound) as caught:
        images.find(POD, container("istio/reviews-v1:1.20"))
    text = str(caught.value)
    for part in ("shop/p", "main", "istio/reviews-v1:1.20", str(tmp_path / "images.yaml")):
        assert part in text
    assert '  - match: "docker.io/istio/reviews-v1:*"' in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "is not YAML"),
        ("other: 1", "images: "),
        ("images: [1]", "images[0]: an entry is a mapping"),
        ("images: [{command: [a]}]", "images[0].match"),
        ("images: [{match: a}]", "images[0].command: a command is needed"),
        ("images: [{match: a, command: ls}]", "images[0].command: a list of strings"),
        ("images: [{match: a, command: [ls], comand: x}]", "images[0].comand: unknown field"),
        ("images: [{match: a, command: [ls], user: root}]", "images[0].user"),
        ("images: [{match: a, command: [ls], workingDir: nope}]", "images[0].workingDir"),
        ("images: [{match: a, command: [ls], env: [A]}]", "images[0].env"),
    ],
)
def test_errors_name_file_and_field(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        write(tmp_path, text)
    assert "images.yaml" in str(caught.value)
    assert part in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        load_images(tmp_path / "none.yaml")
    assert load_images(None) == Images()
