curl -N -X POST "https://fal.run/fal-ai/flux/schnell/stream" \
  -H "Authorization: Key $FAL_KEY" \
  -H "Content-Type: application/json" \
  -d '{"prompt": "a sunset over mountains"}'
