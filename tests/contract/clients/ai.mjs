// One use of Vercel's AI SDK with @ai-sdk/fal each, told as a line of JSON: stdin has the calls, from test_ai_sdk.py.
// Pictures go where `baseURL` says; the rest has fal's hosts in it, and comes here by `headrace env --node`.
import { text } from "node:stream/consumers";
import { createFal } from "@ai-sdk/fal";
import {
  experimental_generateSpeech as generateSpeech,
  experimental_generateVideo as generateVideo,
  experimental_transcribe as transcribe,
  generateImage,
} from "ai";

const base64 = (file) => Buffer.from(file.uint8Array).toString("base64");

const kinds = {
  async image(fal, { model, prompt, options, n }) {
    const { images, providerMetadata } = await generateImage({
      model: fal.image(model),
      prompt,
      n,
      maxRetries: 0,
      ...(options && { providerOptions: { fal: options } }),
    });
    return {
      images: images.map((image) => ({ type: image.mediaType, content: base64(image) })),
      metadata: providerMetadata.fal,
    };
  },
  async transcribe(fal, { model, audio }) {
    const { text, segments, language } = await transcribe({
      model: fal.transcription(model),
      audio: Buffer.from(audio),
      maxRetries: 0,
    });
    return { text, segments, language };
  },
  async speech(fal, { model, text }) {
    const { audio } = await generateSpeech({ model: fal.speech(model), text, maxRetries: 0 });
    return { content: base64(audio) };
  },
  async video(fal, { model, prompt }) {
    const { video } = await generateVideo({ model: fal.video(model), prompt, maxRetries: 0 });
    return { content: base64(video) };
  },
};

globalThis.AI_SDK_LOG_WARNINGS = false;

for (const call of JSON.parse(await text(process.stdin))) {
  const fal = createFal({ baseURL: call.baseURL, apiKey: process.env.FAL_KEY });
  try {
    console.log(JSON.stringify({ name: call.name, ...(await kinds[call.kind](fal, call)) }));
  } catch (error) {
    const { name, message, statusCode, responseBody } = error;
    console.log(JSON.stringify({ name: call.name, error: { name, message, status: statusCode, body: responseBody } }));
  }
}
