import { fal } from "@fal-ai/client";

const stream = await fal.stream("fal-ai/flux/schnell", {
  input: {
    prompt: "a sunset over mountains"
  }
});

for await (const event of stream) {
  console.log(event);
}
