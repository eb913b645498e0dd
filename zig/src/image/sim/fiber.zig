//! Several flows of control in one thread, switched only where the code says so: how processes and
//! their folds are interleaved by a seed, and replayed by it.
//!
//! Invariant: at most one fiber runs; one that ended is never resumed.

const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const Context = std.Io.fiber.Context;
const Switch = std.Io.fiber.Switch;

pub const supported = builtin.cpu.arch == .x86_64;

const stack_len = 512 * 1024;

/// The fiber that runs now; null in the scheduler.
pub var current: ?*Fiber = null;
var scheduler: Context = undefined;

pub const Fiber = struct {
    context: Context = undefined,
    stack: []align(os.page_size) u8,
    run: *const fn (*anyopaque) void = undefined,
    argument: *anyopaque = undefined,
    ended: bool = true,
    /// The process that it belongs to.
    owner: u8,

    pub fn init(owner: u8) Fiber {
        return .{ .owner = owner, .stack = os.allocatePages(stack_len) catch @panic("no memory for a fiber") };
    }

    pub fn start(self: *Fiber, run: *const fn (*anyopaque) void, argument: *anyopaque) void {
        std.debug.assert(self.ended);
        self.ended = false;
        self.run = run;
        self.argument = argument;
        self.context = .{
            .rsp = @intFromPtr(self.stack.ptr) + self.stack.len - 64,
            .rbp = @intFromPtr(self),
            .rip = @intFromPtr(&entry),
        };
    }

    /// From the scheduler: goes on with this fiber until it yields or ends.
    pub noinline fn goOn(self: *Fiber) void {
        std.debug.assert(current == null and !self.ended);
        current = self;
        const message: Switch = .{ .old = &scheduler, .new = &self.context };
        _ = std.Io.fiber.contextSwitch(&message);
        current = null;
    }
};

/// From a fiber: back to the scheduler, until it is this fiber's turn again.
pub noinline fn yield() void {
    const self = current orelse return;
    const message: Switch = .{ .old = &self.context, .new = &scheduler };
    _ = std.Io.fiber.contextSwitch(&message);
}

fn entry() callconv(.naked) void {
    asm volatile (
        \\ movq %%rbp, %%rdi
        \\ xorl %%ebp, %%ebp
        \\ callq %[main:P]
        :
        : [main] "X" (&main),
    );
}

fn main(self: *Fiber) callconv(.c) noreturn {
    self.run(self.argument);
    self.ended = true;
    yield();
    unreachable;
}
