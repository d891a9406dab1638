"""Makes a container, as no bucket of `pv` does: make_container.py URL ACCOUNT KEY CONTAINER"""

import base64
import email.utils
import hmac
import sys
import urllib.request

url, account, key, container = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
# A request without a body, and none of the headers that have a line of their own.
text = "PUT" + "\n" * 12 + named + f"/{account}/{account}/{container}\nrestype:container"
signature = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
request = urllib.request.Request(f"{url}/{account}/{container}?restype=container", method="PUT", headers=headers)
request.add_header("Authorization", f"SharedKey {account}:{signature}")
with urllib.request.urlopen(request) as answer:
    assert answer.status == 201, answer.status
