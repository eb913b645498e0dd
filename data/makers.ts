/**
 * Constructors of handles, one for each struct, all alike and each written out.
 *
 * The reason is JavaScriptCore: objects that one function's code makes with different prototypes
 * are given "poly proto" structures as soon as one access sees two of them, and from then on accessors
 * are not inlined (7 ns a field instead of 1.7) and an object takes 90 ns to make instead of 9. A
 * closure or a class that is evaluated again is the same code; only another text is another function,
 * and `new Function` is what many programs forbid. Structs beyond the last line share its code.
 *
 * @module
 */
// deno-fmt-ignore-file

import type { Handle } from "./handle.ts";
import type { Pane, PaneView } from "./pane.ts";

type H = { $view: V; $at: number };
type V = PaneView;
type N = Maker & ((this: H, v: V, a: number) => void);

/** Makes a handle of what stands at an offset of a pane. */
export type Reader = (pane: Pane, at: number) => Handle;

/** Constructor of one struct's handles, and what calls it. */
export interface Maker {
  new (view: PaneView, at: number): Handle;
  /** Of an object that stands alone. */
  alone: Reader;
  /** Of an object that stands in another one. */
  inner: Reader;
}

let used = 0;

/** A constructor whose objects have that prototype. */
export function makerFor(prototype: object): Maker {
  const maker = makers[Math.min(used++, makers.length - 1)]();
  (maker as { prototype: object }).prototype = prototype;
  return maker;
}

const makers: readonly (() => Maker)[] = [
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
  () => {
    const M = function (this: H, v: V, a: number) { this.$view = v; this.$at = a; } as N;
    M.alone = (p, a) => new M(p.view, a);
    M.inner = (p, a) => new M(p.inner, a);
    return M;
  },
];
