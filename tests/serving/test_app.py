"""What the application answers, and what it refuses."""

from __future__ import annotations

import asyncio
import csv
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from promptot.adaptation.linear_head import LinearHead
from promptot.backbones import Backbone
from promptot.data.images.read_image import load_image
from promptot.errors import PromptotError
from promptot.runs.adapter import save_adapter
from promptot.runs.classifier import Classifier, load
from promptot.serving.comparing import Comparer, Comparison
from promptot.serving.flags import Flag, FlagFile
from promptot.serving.guard import Limits
from promptot.serving.web_app import create_app

Images = Callable[..., bytes]
SHA = "ab" * 32
STATM = Path("/proc/self/statm")


def client_of(comparer: Comparer, flags: Path, limits: Limits | None = None) -> TestClient:
    app = create_app(comparer, FlagFile(flags), title="photos", limits=limits or Limits())
    return TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False)


@pytest.fixture
def client(classifier: Classifier, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(Comparer(classifier), tmp_path / "flags.csv") as client:
        yield client


def ask(client: TestClient, image: bytes, names: object = None, filename: str = "a.png", **kwargs):
    data = (
        {} if names is None else {"names": names if isinstance(names, str) else json.dumps(names)}
    )
    return client.post("/compare", files={"image": (filename, image)}, data=data, **kwargs)


# answers


@pytest.mark.parametrize("names", [None, ["hot dog", "boat", "cat", "moose"]])
def test_both_models_answer_over_the_same_names(
    client: TestClient, classifier: Classifier, backbone: Backbone, make_image: Images,
    tmp_path: Path, names: list[str] | None,
) -> None:  # fmt: skip
    (tmp_path / "a.png").write_bytes(make_image())
    found = ask(client, make_image(), names).json()
    expected = names or list(classifier.class_names)
    assert found["class_names"] == expected

    (prediction,) = classifier.predict([tmp_path / "a.png"], expected, top_k=len(expected))
    adapted = torch.tensor(found["adapted"]).softmax(0)
    for name, probability in zip(prediction.class_names, prediction.probabilities, strict=True):
        assert float(adapted[expected.index(name)]) == pytest.approx(probability, abs=1e-5)

    with torch.no_grad():
        pixels = backbone.preprocess.test()(load_image(tmp_path / "a.png")).unsqueeze(0)
        text = backbone.encode_text(backbone.tokenize(expected))
        frozen = (backbone.logit_scale * backbone.encode_image(pixels) @ text.T)[0]
    torch.testing.assert_close(torch.tensor(found["frozen"]), frozen, atol=1e-4, rtol=0)
    assert not torch.allclose(torch.tensor(found["adapted"]), frozen, atol=0.01)


def test_a_linear_probe_answers_beside_the_zero_shot_model(
    backbone: Backbone, make_image: Images, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    head = LinearHead(torch.randn(2, backbone.embed_dim), torch.randn(2))
    save_adapter(tmp_path / "probe", head, backbone, ("cat", "dog"), "a photo of a {}.")
    comparer = Comparer(load(tmp_path / "probe", backbone))
    with client_of(comparer, tmp_path / "flags.csv") as client:
        assert client.get("/about").json()["any_names"] is False
        found = ask(client, make_image(), ["dog"]).json()
        assert len(found["adapted"]) == len(found["frozen"]) == 1
        refused = ask(client, make_image(), ["zebra"])
    assert refused.status_code == 400
    assert "can't serve 'zebra'" in refused.json()["problem"]


def test_the_page_is_told_of_a_sigmoid(
    client: TestClient, classifier: Classifier, make_image: Images, tmp_path: Path
) -> None:
    assert ask(client, make_image()).json()["fit"] == "softmax"
    recipe = {"objective.fit": "sigmoid"}
    card = classifier.card.model_copy(update={"recipe": recipe})
    model = classifier.adapter._replace(card=card).model(classifier.model.backbone)
    with client_of(Comparer(Classifier(model, card)), tmp_path / "flags.csv") as other:
        for names in (None, ["moose", "boat"]):
            assert ask(other, make_image(), names).json()["fit"] == "sigmoid"


def test_what_the_page_is_told(client: TestClient, classifier: Classifier) -> None:
    about = client.get("/about").json()
    assert about["title"] == "photos"
    assert about["class_names"] == list(classifier.class_names)
    assert about["any_names"] is True
    assert about["limits"]["upload_bytes"] == 20 * 2**20


# refusals


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image|the file is empty"),
        (b"just a text\n" * 20, "it holds text"),
        (b"<svg onload=alert(1)></svg>", "SVG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "damaged|not an image"),
        (b"PK\x03\x04" + bytes(100), "not an image"),
    ],
)
def test_what_is_no_image_is_refused_without_a_path(
    client: TestClient, content: bytes, reason: str
) -> None:
    import re

    answer = ask(client, content, filename="photo.png")
    assert answer.status_code == 400
    assert re.search(reason, answer.json()["problem"]), answer.json()
    assert "/tmp" not in answer.text


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["cat", "CAT"], "comes twice"),
        (["cat", "  "], "empty"),
        ([], "no class names"),
        ("not json", "not a list"),
        ('{"a": 1}', "not a list"),
        ("[1, 2]", "not a list"),
        ("[" * 100_000, "not a list"),
        (["x" * 201], "201 characters"),
        ([str(n) for n in range(1001)], "more than the page takes"),
        (["\ud800"], "not valid text"),
    ],
)
def test_names_that_can_not_be_used(
    client: TestClient, make_image: Images, names: object, reason: str
) -> None:
    answer = ask(client, make_image(), names)
    assert answer.status_code == 400
    assert reason in answer.json()["problem"]


def test_markup_in_names_is_only_text(client: TestClient, make_image: Images) -> None:
    name = "<img src=x onerror=alert(1)>"
    answer = ask(client, make_image(), [name, "cat"], filename="<script>.png")
    assert answer.json()["class_names"] == [name, "cat"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_uploads_that_are_too_large(
    classifier: Classifier, make_image: Images, tmp_path: Path
) -> None:
    limits = Limits(upload_bytes=10_000)
    with client_of(Comparer(classifier), tmp_path / "flags.csv", limits) as client:
        assert ask(client, make_image()).status_code == 200
        answer = ask(client, bytes(20_000))
        assert answer.status_code == 413
        assert "larger than" in answer.json()["problem"]

        def pieces() -> Iterator[bytes]:  # sent without a length
            yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            for _ in range(20):
                yield bytes(1000)

        kind = {"content-type": "multipart/form-data; boundary=b"}
        assert client.post("/compare", content=pieces(), headers=kind).status_code == 413
        assert client.post("/flag", content=bytes(20_000)).status_code == 413


def test_an_upload_that_never_ends_is_given_up(classifier: Classifier, tmp_path: Path) -> None:
    limits = Limits(upload_seconds=0.2)
    app = create_app(Comparer(classifier), FlagFile(tmp_path / "f.csv"), title="", limits=limits)
    sent = []
    parts = iter([b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'])

    async def receive() -> dict:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": next(parts, b"x"), "more_body": True}

    async def send(message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/compare", "raw_path": b"/compare"}
    scope |= {"headers": headers, "query_string": b"", "http_version": "1.1", "scheme": "http"}
    began = time.monotonic()
    asyncio.run(app(scope, receive, send))
    assert time.monotonic() - began < 5
    assert sent[0]["status"] == 408


class SlowComparer(Comparer):
    """Answers when it is let go."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self.gate = threading.Event()

    def __call__(self, image, class_names=None) -> Comparison:
        self.gate.wait(10)
        return super().__call__(image, class_names)


def test_waiting_has_an_end(classifier: Classifier, make_image: Images, tmp_path: Path) -> None:
    comparer = SlowComparer(classifier)
    limits = Limits(answer_seconds=2.0)
    with client_of(comparer, tmp_path / "flags.csv", limits) as client:
        answer = ask(client, make_image())
        assert answer.status_code == 503
        assert "did not answer in time" in answer.json()["problem"]
        comparer.gate.set()
        assert ask(client, make_image()).status_code == 200


def test_only_so_many_may_wait(classifier: Classifier, make_image: Images, tmp_path: Path) -> None:
    comparer = SlowComparer(classifier)
    codes: list[int] = []
    with client_of(comparer, tmp_path / "flags.csv", Limits(waiting=2)) as client:
        threads = [
            threading.Thread(target=lambda: codes.append(ask(client, make_image()).status_code))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        while codes.count(503) < 3:
            time.sleep(0.01)
        comparer.gate.set()
        for thread in threads:
            thread.join()
    assert sorted(codes) == [200, 200, 503, 503, 503]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "10.0.0.1", "", "127.0.0.1.nip.io"]
)
def test_a_host_name_of_somebody_else_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765"])
def test_this_machine_is_not(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
    ],
)  # fmt: skip
def test_another_site_can_not_flag(
    client: TestClient, tmp_path: Path, headers: dict[str, str]
) -> None:
    assert client.post("/flag", json=flag_of("cat"), headers=headers).status_code == 403
    assert not (tmp_path / "flags.csv").exists()


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        assert "http" not in answer.text.replace("http://www.w3.org", "")
    for answer in (client.get("/"), client.get("/nowhere"), client.get("/", headers={"host": "x"})):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]


class FailingComparer(Comparer):
    """Has a bug."""

    def __call__(self, image, class_names=None) -> Comparison:
        raise ZeroDivisionError


def test_a_failure_does_not_show_its_insides(
    classifier: Classifier, make_image: Images, tmp_path: Path
) -> None:
    with client_of(FailingComparer(classifier), tmp_path / "flags.csv") as client:
        answer = ask(client, make_image())
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text


# flags


def flag_of(name: str, **more: object) -> dict[str, object]:
    answer = {"name": name, "probability": 0.5}
    return {
        "image": "a.png", "sha256": SHA, "right": "", "strength": 0.5, "frozen": answer,
        "adapted": answer, "between": answer, **more,
    }  # fmt: skip


def test_flags_become_rows(client: TestClient, tmp_path: Path) -> None:
    first = client.post("/flag", json=flag_of("cat", right="dog", image="ma petite «photo».png"))
    assert first.json() == {"count": 1, "file": "flags.csv"}
    assert client.post("/flag", json=flag_of('say "hi", twice')).json()["count"] == 2
    with (tmp_path / "flags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frozen"] for row in rows] == ["cat", 'say "hi", twice']
    assert rows[0]["image"] == "ma petite «photo».png"
    assert rows[0]["right"] == "dog"
    assert rows[0]["lambda"] == "0.50"
    assert rows[0]["sha256"] == SHA


@pytest.mark.parametrize(
    "text",
    ["=cmd|'/c calc'!A0", "+1", "-1+2", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", "a\n=1,b"],
)
def test_no_cell_is_a_formula(client: TestClient, tmp_path: Path, text: str) -> None:
    client.post("/flag", json=flag_of(text, image=text, right=text))
    content = (tmp_path / "flags.csv").read_text(encoding="utf-8")
    assert content.count("\n") == 2
    for cell in list(csv.reader(content.splitlines()))[1]:
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
        assert not set(cell) & set("\t\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"[" * 100_000, json.dumps(flag_of("x" * 301)).encode(),
        json.dumps(flag_of("x", strength=2)).encode(),
        json.dumps(flag_of("x", sha256="../a")).encode(),
        json.dumps(flag_of("x", more=1)).encode(),
        json.dumps(flag_of("x", strength=float("nan"))).encode(),
    ],
)  # fmt: skip
def test_what_is_no_flag_is_not_written(client: TestClient, tmp_path: Path, body: bytes) -> None:
    assert client.post("/flag", content=body).status_code == 400
    assert not (tmp_path / "flags.csv").exists()


def test_flags_of_many_at_once_are_all_there(client: TestClient, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=client.post, args=("/flag",), kwargs={"json": flag_of(f"n{i}")})
        for i in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = (tmp_path / "flags.csv").read_text().splitlines()
    assert len(rows) == 31
    assert {row.split(",")[4] for row in rows[1:]} == {f"n{i}" for i in range(30)}


def test_a_full_flag_file_says_so(tmp_path: Path) -> None:
    file = FlagFile(tmp_path / "flags.csv", largest=200)
    file.add(Flag.model_validate(flag_of("cat")))
    with pytest.raises(PromptotError, match="is full"):
        file.add(Flag.model_validate(flag_of("cat")))


# long use


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="memory is read from Linux's /proc")
def test_memory_stays_flat_over_10000_predictions(client: TestClient, make_image: Images) -> None:
    images = [make_image(seed) for seed in range(20)]
    pages = []
    for number in range(10_000):
        names = ["cat", f"thing {number} wolf{number * 7919}"]  # words that never came before
        assert ask(client, images[number % 20], names).status_code == 200
        if number % 500 == 499:
            pages.append(int(STATM.read_text().split()[1]))
    assert max(pages[4:]) < 1.02 * pages[3], pages
    print(f"resident MB: {[page * 4096 // 2**20 for page in pages]}")
