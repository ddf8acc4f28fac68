import asyncio
import fal_client

async def main():
    async for event in fal_client.stream_async("fal-ai/flux/schnell", arguments={
        "prompt": "a sunset over mountains"
    }):
        print(event)

asyncio.run(main())
