/** The pseudo-random numbers of all measures: seeded, so that every run has the same load. @module */

/** Whole numbers from 0 to below `limit`, by xorshift32. */
export function randomSource(seed: number): (limit: number) => number {
  let state = seed | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

/** Fills words with what is neither zero nor equal from page to page. */
export function fillWords(words: Uint32Array): void {
  let state = 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    state = Math.imul(state, 0x915f77f5) + 1 | 0;
    words[i] = state;
  }
}
