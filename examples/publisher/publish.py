# python3 publish.py TOPIC TEXT
import os
import sys
import uuid
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

topic, text = sys.argv[1:3]
hub = os.environ.get("RINGSIDE_URL", "http://127.0.0.1:3000")

request = Request(
    f"{hub}/events/{quote(topic)}",
    data=text.encode(),
    headers={"Content-Type": "text/plain", "Idempotency-Key": str(uuid.uuid4())},
)
try:
    with urlopen(request, timeout=10) as answer:
        print(answer.read().decode())
except HTTPError as error:
    print(error.read().decode())
    sys.exit(1)
