import fal_client

for event in fal_client.stream("fal-ai/flux/schnell", arguments={
    "prompt": "a sunset over mountains"
}):
    print(event)
