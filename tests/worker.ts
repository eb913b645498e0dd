/**
 * The Worker of a test: runs each call that is posted to it and posts the answer.
 *
 * @module
 */
import { answer, type Call } from "./remote.ts";

interface WorkerScope {
  onmessage: ((event: MessageEvent<Call>) => void) | null;
  postMessage(message: unknown): void;
}

const scope = globalThis as unknown as WorkerScope;
scope.onmessage = async ({ data }) => scope.postMessage(await answer(data));
