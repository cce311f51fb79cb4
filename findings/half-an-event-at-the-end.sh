#!/usr/bin/env bash
# sseclient-py 1.9.0 (Python), parse-sse 0.1.0 (npm): a block that the end of the answer has cut short is handed on as an event.
#
# Expected: "Once the end of the file is reached, any pending data must be discarded. (If the file ends in the middle of an
# event, before the final empty line, the incomplete event is not dispatched.)" (WHATWG, section 9.2.6). A proxy that ends
# a chunked answer properly while its server is cut off makes just that, so that it isn't seen as an error.
# Seen: both hand on what there is of the event: half of its data, and the id of the event before it or none.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf '{"type":"module"}\n' >package.json
npm install --silent --no-audit --no-fund parse-sse@0.1.0
python3 -m venv python >/dev/null && python/bin/pip install --quiet --disable-pip-version-check sseclient-py==1.9.0

cat >check.js <<'JS'
import { parseServerSentEvents } from 'parse-sse'

const answer = new Response('data: {"n":1}\nid: 1\n\ndata: {"n":', { headers: { 'content-type': 'text/event-stream' } })
for await (const { data } of parseServerSentEvents(answer)) console.log(data)
JS
cat >check.py <<'PY'
import sseclient

for event in sseclient.SSEClient([b'data: {"n":1}\nid: 1\n\n', b'data: {"n":']).events():
    print(event.data)
PY

for seen in "parse-sse: $(node check.js | tr '\n' ' ')" "sseclient-py: $(python/bin/python check.py | tr '\n' ' ')"; do
  echo "$seen"
  case $seen in
    *': {"n":1} {"n": ') ;;
    *) echo 'this has changed' >&2; exit 1 ;;
  esac
done
echo 'Half an event was handed on.'
