#!/bin/sh
# sh publish.sh TOPIC TEXT (a topic as it stands in a URL)
set -eu

hub=${RINGSIDE_URL:-http://127.0.0.1:3000}

# --retry repeats the same request, and so the same key, when Ringside says 503
curl -sS --fail-with-body --retry 3 \
  -H 'Content-Type: text/plain' -H "Idempotency-Key: $(date +%s)-$$" \
  --data-raw "$2" "$hub/events/$1"
echo
