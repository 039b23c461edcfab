#!/usr/bin/env bash
# The endpoints with curl alone: ask for an avatar, follow it, take its files, film it, look at the record, remove everything.
#
#   svad-ray serve --store out/service              prints a token at its first start
#   bash examples/07_endpoint_client.sh http://127.0.0.1:8000 TOKEN photo.jpg out/mine
set -euo pipefail
url=$1 token=$2 photo=$3 out=$4
call() { curl --silent --show-error --fail-with-body -H "Authorization: Bearer $token" "$@"; }
value() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

id=$(call -F "photo=@$photo" -F consent="the person in the photo agreed" -H "Idempotency-Key: $(uuidgen 2>/dev/null || date +%s%N)" "$url/v1/avatars" | value id)
call --no-buffer "$url/v1/avatars/$id/events" | sed -n 's/^event: //p' | uniq -c          # ends with done, failed or cancelled
state=$(call "$url/v1/avatars/$id" | value state)
[ "$state" = done ] || { call "$url/v1/avatars/$id"; exit 1; }

mkdir -p "$out/avatar"
for name in avatar/avatar.json avatar/avatar.safetensors avatar.ply; do
  call -o "$out/$name" -C - "$url/v1/avatars/$id/artefacts/$name"                         # -C -: an interrupted one goes on
done
call -H 'Content-Type: application/json' -o "$out/arms.mp4" -d "{\"avatar\": \"$id\", \"motion\": \"arms\", \"size\": 128, \"format\": \"mp4\"}" "$url/v1/animate"
call -H 'Content-Type: application/json' -o "$out/side.png" -d "{\"avatar\": \"$id\", \"camera\": {\"yaw_deg\": 90}, \"size\": 128}" "$url/v1/render"
svad-ray provenance verify "$out/arms.mp4" "$out/side.png" || echo "not signed by this machine: give the service's root.pem with --signer"
call -X DELETE "$url/v1/avatars/$id"                                                      # with a signed receipt
