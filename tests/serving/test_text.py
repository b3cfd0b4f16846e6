"""Text that is no text, and what a client is told when the disk is full."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from httpx import Response
from starlette.testclient import TestClient

from promptot.errors import PromptotError
from promptot.files.writing import explain
from promptot.runs.classifier import Classifier
from promptot.serving.comparing import Comparer
from promptot.serving.flags import Flag, FlagFile
from promptot.serving.web_app import create_app

Images = Callable[..., bytes]
FLAG = {
    "image": "a.png", "sha256": "ab" * 32, "right": "", "strength": 0.5,
    **{key: {"name": "cat", "probability": 0.5} for key in ("frozen", "adapted", "between")},
}  # fmt: skip


@pytest.fixture
def client(classifier: Classifier, tmp_path: Path) -> Iterator[TestClient]:
    title = os.fsdecode(b"run-\xff")
    app = create_app(Comparer(classifier), FlagFile(tmp_path / "flags.csv"), title=title)
    with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as client:
        yield client


def form(client: TestClient, image: bytes, names: bytes, charset: str = "") -> tuple[int, str]:
    body = b'--b\r\nContent-Disposition: form-data; name="names"\r\n\r\n' + names
    body += b'\r\n--b\r\nContent-Disposition: form-data; name="image"; filename="a\xed\xa0\x80"\r\n'
    body += b"\r\n" + image + b"\r\n--b--\r\n"
    kind = f"multipart/form-data; boundary=b{charset and f'; charset={charset}'}"
    answer = client.post("/compare", content=body, headers={"content-type": kind})
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    "names",
    [
        rb'["\ud800"]', rb'["cat", "dog\udfff"]', rb'["\ud800", "\ud800"]', rb'["\udc80 \ud83d"]',
        b'["' + rb"\ud800" * 300 + b'"]', b"[" + rb'"\ud800",' * 2000 + b'"cat"]',
    ],
)  # fmt: skip
def test_lone_surrogates_in_a_form(client: TestClient, make_image: Images, names: bytes) -> None:
    status, text = form(client, make_image(), names)
    assert status == 400
    assert "not valid text" in json.loads(text)["problem"]


@pytest.mark.parametrize("charset", ["idna", "punycode", "undefined", "unicode_escape", "utf-7"])
def test_character_sets_of_the_senders_choice(
    client: TestClient, make_image: Images, charset: str
) -> None:
    status, text = form(client, make_image(), b'["\\ud800\xff"]', charset)
    assert status == 400
    assert json.loads(text)["problem"]


def test_bytes_that_are_no_text(client: TestClient, make_image: Images) -> None:
    status, text = form(client, make_image(), b'["\xed\xa0\x80\xff"]')
    assert status in (200, 400)  # read as Latin-1, or refused
    assert json.loads(text)


@pytest.mark.parametrize("place", ["image", "right", "frozen"])
def test_lone_surrogates_in_a_flag(client: TestClient, tmp_path: Path, place: str) -> None:
    broken = {"name": "\ud800", "probability": 0.5} if place == "frozen" else "\udfff.png"
    answer = client.post("/flag", content=json.dumps({**FLAG, place: broken}).encode())
    assert answer.status_code == 400
    assert answer.json()["problem"]
    assert not (tmp_path / "flags.csv").exists()


@pytest.mark.parametrize("query", ["x=%ED%A0%80", "names=[%22%ED%A0%80%22]", "%ff=%fe", "%ED%A0"])
def test_queries_are_not_read(client: TestClient, make_image: Images, query: str) -> None:
    assert client.get(f"/about?{query}").status_code == 200
    answer = client.post(f"/compare?{query}", files={"image": ("a", make_image())})
    assert answer.status_code == 200
    assert client.post(f"/flag?{query}", content=b"{}").status_code == 400
    assert client.get(f"/{query}").status_code == 404


def test_a_run_whose_name_is_no_text(client: TestClient) -> None:
    assert client.get("/about").json()["title"] == "run-\N{REPLACEMENT CHARACTER}"


def test_where_the_backbone_lies_is_not_told(client: TestClient, clip_file: Path) -> None:
    assert client.get("/about").json()["backbone"] == f"openai:{clip_file.name}"


# the disk


def full(target: Path) -> PromptotError:
    cause = OSError(errno.ENOSPC, "No space left on device", str(target))
    error = explain(cause, target)
    error.__cause__ = cause
    return error


def answer_to_a_flag(classifier: Classifier, flags: FlagFile) -> Response:
    app = create_app(Comparer(classifier), flags, title="")
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        return client.post("/flag", json=FLAG)


class FullDisk(FlagFile):
    """Flags on a disk that is full."""

    bare = False

    def add(self, flag: Flag) -> int:
        error = full(self.path)
        raise error.__cause__ if self.bare and error.__cause__ else error


@pytest.mark.parametrize("bare", [False, True])
def test_a_full_disk_is_said_without_its_paths(
    classifier: Classifier, tmp_path: Path, bare: bool
) -> None:
    flags = FullDisk(tmp_path / "flags.csv")
    flags.bare = bare
    answer = answer_to_a_flag(classifier, flags)
    assert answer.status_code == 507
    assert "disk of the machine that runs the page is full" in answer.json()["problem"]
    assert str(tmp_path) not in answer.text
    assert "/" not in answer.text.replace("application/json", "")


def test_a_real_failure_to_write_is_said_without_paths(
    tmp_path: Path, classifier: Classifier
) -> None:
    (tmp_path / "file").write_text("x")
    answer = answer_to_a_flag(classifier, FlagFile(tmp_path / "file" / "flags.csv"))
    assert answer.status_code == 507
    assert "The flag was not kept" in answer.json()["problem"]
    assert str(tmp_path) not in answer.text


class ForeignFile(FlagFile):
    """Flags in the place of somebody else's file."""

    def add(self, flag: Flag) -> int:
        raise PromptotError(f"'{self.path}' is not ours.", fix=f"Move '{self.path.resolve()}'.")


def test_other_errors_of_the_file_name_it_alone(tmp_path: Path, classifier: Classifier) -> None:
    answer = answer_to_a_flag(classifier, ForeignFile(tmp_path / "flags.csv"))
    assert answer.status_code == 400
    assert answer.json() == {"problem": "'flags.csv' is not ours.", "fix": "Move 'flags.csv'."}
