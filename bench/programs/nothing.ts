/** A program that does nothing: what a runtime's start costs. @module */
export {};
