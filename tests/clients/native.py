"""The native API as other people's software sees it: python3 tests/clients/native.py http://127.0.0.1:8484

Needs a running server with kontext-tiny, and from pip: requests, pillow, prometheus-client,
openapi-spec-validator, sseclient-py. Every check uses a library that nobody here wrote; it prints a
line for each and ends with the number of those that failed.
"""

import base64
import io
import sys
import traceback

import requests
import sseclient
from openapi_spec_validator import validate
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

SMALL = {"num_inference_steps": 3, "width": 64, "height": 64, "seed": 7}


def photo(size: tuple[int, int] = (80, 64)) -> bytes:
    """A PNG of PIL's own."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return file.getvalue()


class Server:
    def __init__(self, base: str) -> None:
        self.base = base

    def get(self, path: str, **params) -> requests.Response:
        answer = requests.get(self.base + path, params=params, timeout=60)
        assert answer.ok, answer.text
        return answer

    def edit(self, **fields) -> dict:
        """Submits an edit as a form and follows its events to the end."""
        files = {"image": ("holiday.png", photo(), "application/octet-stream")}
        answer = requests.post(self.base + "/api/edits", files=files, data=SMALL | fields, timeout=60)
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert answer.headers["location"] == f"/api/jobs/{job['id']}"
        return self.follow(job)

    def follow(self, job: dict) -> dict:
        stream = requests.get(self.base + job["events_url"], stream=True, timeout=120)
        names = [event.event for event in sseclient.SSEClient(stream).events()]
        assert names[0] == "queued" and names[-1] == "done", names
        assert names.count("step") == SMALL["num_inference_steps"] and "preview" in names, names
        return self.get(f"/api/jobs/{job['id']}").json()


def the_document_is_valid_openapi(server: Server) -> None:
    validate(server.get("/openapi.json").json())


def a_form_gives_an_image_that_pil_opens_in_every_format(server: Server) -> None:
    image = server.edit(style="sepia")["image"]
    for name, kind in (("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")):
        content = server.get(image["url"], format=name)
        assert content.headers["content-type"] == f"image/{name}"
        opened = Image.open(io.BytesIO(content.content))
        opened.load()
        assert opened.format == kind and opened.size == (64, 64), opened
        assert not opened.getexif() and not {"icc_profile", "exif"} & opened.info.keys()
    narrow = Image.open(io.BytesIO(server.get(image["url"], width=32).content))
    assert narrow.size == (32, 32), narrow


def json_and_form_with_one_seed_give_equal_bytes(server: Server) -> None:
    form = server.edit(prompt="make it night")
    picture = "data:image/png;base64," + base64.b64encode(photo()).decode()
    body = SMALL | {"prompt": "make it night", "image": picture}
    answer = requests.post(server.base + "/api/edits", json=body, timeout=60)
    assert answer.status_code == 202, answer.text
    other = server.follow(answer.json())
    contents = [server.get(job["image"]["url"]).content for job in (form, other)]
    assert contents[0] == contents[1] and form["image"]["id"] != other["image"]["id"]


def a_chunked_upload_without_a_length_works(server: Server) -> None:
    body, kind = requests.models.RequestEncodingMixin._encode_files(
        {"image": ("x", photo())}, {key: str(value) for key, value in SMALL.items()} | {"style": "night"}
    )
    pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
    answer = requests.post(
        server.base + "/api/edits", data=pieces, headers={"content-type": kind}, timeout=60
    )
    assert answer.status_code == 202, answer.text
    assert server.follow(answer.json())["state"] == "done"


def a_list_has_what_was_made_and_not_what_was_deleted(server: Server) -> None:
    kept, gone = (server.edit(style="vintage")["image"]["id"] for _ in range(2))
    assert requests.delete(f"{server.base}/api/images/{gone}", timeout=60).status_code == 204
    listed = [image["id"] for image in server.get("/api/images", style="vintage").json()["images"]]
    assert kept in listed and gone not in listed
    assert requests.get(f"{server.base}/api/images/{gone}/content", timeout=60).status_code == 404


def prometheus_reads_the_metrics(server: Server) -> None:
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}
    steps = families["darkroom_step_seconds"]
    assert steps.type == "histogram"
    assert max(sample.value for sample in steps.samples if sample.name.endswith("_count")) > 0
    ended = families["darkroom_jobs_ended"]
    assert any(sample.labels["state"] == "done" and sample.value > 0 for sample in ended.samples)


CHECKS = (
    the_document_is_valid_openapi,
    a_form_gives_an_image_that_pil_opens_in_every_format,
    json_and_form_with_one_seed_give_equal_bytes,
    a_chunked_upload_without_a_length_works,
    a_list_has_what_was_made_and_not_what_was_deleted,
    prometheus_reads_the_metrics,
)


def main(base: str) -> int:
    failed = 0
    for check in CHECKS:
        try:
            check(Server(base))
            print(f"ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {check.__name__}")
            traceback.print_exc()
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/")))
