import asyncio
import json

from scripts.demo_page.request_limit import RequestLimit


async def echo(scope, receive, send):
    """An application that answers with what it reads, and notes how its client goes."""
    message = await receive()
    assert not message.get("more_body")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})
    assert (await receive())["type"] == "http.disconnect"


def request(chunks, kind="http"):
    """Send a body in chunks; returns the messages of the answer and how many of ours were not read."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1] = messages[-1] | {"more_body": False}
    messages.append({"type": "http.disconnect"})
    answer = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        answer.append(message)

    asyncio.run(RequestLimit(echo, max_bytes=10, message="Too long.")({"type": kind}, receive, send))
    return answer, len(messages)


def test_a_body_within_the_limit_arrives_whole():
    for chunks in ([b""], [b"0123456789"], [b"01234", b"", b"56789"]):
        (start, body), left = request(chunks)
        assert start["status"] == 200
        assert body["body"] == b"".join(chunks)
        assert left == 0


def test_a_longer_body_is_read_to_its_end_and_refused_before_the_application():
    for chunks in ([b"0123456789a"], [b"01234"] * 3, [b"x" * 1000] * 1000):
        (start, body), left = request(chunks)
        assert start["status"] == 413
        assert json.loads(body["body"]) == {"detail": "Too long."}
        assert left == 1


def test_what_is_no_request_passes():
    (_, body), _ = request([b"0123456789a"], kind="lifespan")
    assert body["body"] == b"0123456789a"
