"""A real S3 server on a free port of the loopback, which lets nobody in who does not sign as Amazon asks.

    python-of-servers strict_s3.py [BUCKET ...]      prints its port, serves until its standard input ends
    python3 strict_s3.py --published                checks the verifier against the example that Amazon publishes

The server takes any signature, so the one here stands before it. It is written from the description of Signature
Version 4 with nothing but the standard library, and knows nothing of the client that it judges.
"""

import datetime
import hashlib
import hmac
import re
import sys
import threading
import urllib.parse

KEYS = {"AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
EMPTY = hashlib.sha256(b"").hexdigest()


def quote(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-_.~")


def signature(secret, method, path, query, headers, signed, body_hash, stamp, scope):
    """Returns what a request is signed with; `headers` maps lowercase names to values."""
    pairs = sorted((quote(k), quote(v)) for k, v in urllib.parse.parse_qsl(query, keep_blank_values=True))
    request = "\n".join(
        [method, quote(urllib.parse.unquote(path), "/"), "&".join(f"{k}={v}" for k, v in pairs)]
        + [f"{name}:{' '.join(headers[name].split())}" for name in signed]
        + ["", ";".join(signed), body_hash]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def complaint(method, path, query, headers, body, keys, now):
    """Returns the status and code with which a request is refused, or None."""
    fields = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
        headers.get("authorization", ""),
    )
    if not fields:
        return "403 Forbidden", "AccessDenied"
    key, scope, signed, given = fields.groups()
    signed, stamp = signed.split(";"), headers.get("x-amz-date", "")
    if key not in keys:
        return "403 Forbidden", "InvalidAccessKeyId"
    must = {"host"} | {name for name in headers if name.startswith("x-amz-")}
    if not must <= set(signed) or signed != sorted(signed) or scope.split("/")[0] != stamp[:8]:
        return "403 Forbidden", "AuthorizationHeaderMalformed"
    if abs((now - datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")).total_seconds()) > 900:
        return "403 Forbidden", "RequestTimeTooSkewed"
    body_hash = headers.get("x-amz-content-sha256", "")
    right = signature(keys[key], method, path, query, headers, signed, body_hash, stamp, scope)
    if not hmac.compare_digest(right, given):
        return "403 Forbidden", "SignatureDoesNotMatch"
    # Not to sign what is sent would be allowed, but then nobody notices what becomes of it on its way.
    if hashlib.sha256(body).hexdigest() != body_hash:
        return "400 Bad Request", "XAmzContentSHA256Mismatch"
    return None


def published():
    """The example of a GET with a range from Amazon's description of signatures in headers."""
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": "20130524T000000Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    }
    keys = {"AKIAIOSFODNN7EXAMPLE": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
    now = datetime.datetime(2013, 5, 24)
    assert complaint("GET", "/test.txt", "", headers, b"", keys, now) is None
    for changed, code in [
        ({"range": "bytes=0-8"}, "SignatureDoesNotMatch"),
        ({"x-amz-date": "20130524T000001Z"}, "SignatureDoesNotMatch"),
        ({"x-amz-more": "unsigned"}, "AuthorizationHeaderMalformed"),
    ]:
        assert complaint("GET", "/test.txt", "", headers | changed, b"", keys, now)[1] == code
    assert complaint("GET", "/test.txt", "", headers, b"x", keys, now)[1] == "XAmzContentSHA256Mismatch"


def serve(buckets):
    import io
    import os

    os.environ.update({"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "MOTO_ALLOW_NONEXISTENT_REGION": "1"})
    from moto.s3.models import s3_backends
    from moto.server import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    server_of_s3 = create_backend_app("s3")
    one_at_a_time = threading.Lock()
    for bucket in buckets:
        s3_backends["123456789012"]["aws"].create_bucket(bucket, "us-east-1")

    def front(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        path = environ.get("RAW_URI", environ["PATH_INFO"]).split("?")[0]
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        refused = complaint(
            environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], headers, body, KEYS, now
        )
        if refused:
            status, code = refused
            # As Amazon does, the answer repeats what nobody should see in an error.
            said = f"<Error><Code>{code}</Code><AWSAccessKeyId>{headers.get('authorization')}</AWSAccessKeyId></Error>"
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(said)))])
            return [said.encode()]
        if "if-none-match" not in headers:
            return server_of_s3(environ, start_response)
        # Amazon decides who is first; this server would let in two who come at once.
        with one_at_a_time:
            return list(server_of_s3(environ, start_response))

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Handler)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:] == ["--published"]:
        published()
    else:
        serve(sys.argv[1:])
