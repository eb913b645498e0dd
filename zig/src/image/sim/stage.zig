//! A machine with two processes, a heap and an image of it: what histories that are played step by step
//! stand on. It knows what was tried to be committed, and what was acknowledged.
//!
//! Invariant: what an opening for writing finds is the last acknowledged commit or one that was tried
//! after it; from then on it counts as acknowledged itself.

const std = @import("std");
const image_ = @import("../image.zig");
const machine_ = @import("machine.zig");
const medium_ = @import("medium.zig");
const os = @import("../../os/os.zig");
const testing = @import("../testing.zig");
const Fiber = @import("fiber.zig").Fiber;
const Image = image_.Image;
const Process = machine_.Process;
const gpa = std.heap.smp_allocator;

pub const pages = 24;
pub const len = pages * os.page_size;
const never = std.math.maxInt(u64);

/// Calls of the machines of all stages so far.
pub var steps: u64 = 0;

pub const Stage = struct {
    machine: machine_.Machine,
    processes: [2]Process = undefined,
    random: std.Random,
    heap: testing.Heap,
    /// Where a reader builds the heap.
    scratch: usize,
    options: image_.OpenOptions = undefined,
    image: ?*Image = null,
    /// The heap at each commit that was tried; how many of them until the last that was acknowledged.
    tried: std.ArrayList([]u8) = .empty,
    acknowledged: usize = 0,
    value: u64 = 0,

    /// Must not move.
    pub fn init(self: *Stage, random: std.Random) void {
        self.* = .{
            .machine = .init(random.int(u64)),
            .random = random,
            .heap = .init(pages),
            .scratch = os.reserve(0, len) catch @panic("no room for a heap"),
        };
        for (&self.processes, 0..) |*process, id| process.* = .{ .machine = &self.machine, .id = @intCast(id) };
        self.machine.processes = &self.processes;
        self.options = .{ .disk = self.processes[0].disk(), .path = "a", .mode = .create, .background = false };
    }

    pub fn deinit(self: *Stage) void {
        self.close();
        steps += self.machine.steps;
        self.heap.deinit();
        for (self.tried.items) |bytes| gpa.free(bytes);
        self.tried.deinit(gpa);
        os.unmap(self.scratch, len);
        self.machine.deinit();
    }

    pub fn below(self: *Stage, count: usize) usize {
        return self.random.uintLessThan(usize, count);
    }

    // ---- the first process, which writes

    /// Makes the image.
    pub fn make(self: *Stage) !void {
        self.image = try Image.open(self.options);
        try self.heap.join(self.image.?, null);
    }

    /// Changes the first pages.
    pub fn change(self: *Stage, count: usize) void {
        for (0..count) |page| self.touch(page);
    }

    pub fn touch(self: *Stage, page: usize) void {
        self.value += 1;
        self.heap.touch(if (self.image) |image| &.{image} else &.{}, page, self.value);
    }

    /// All pages are again as they were acknowledged last.
    pub fn undo(self: *Stage) void {
        const before = self.tried.items[self.acknowledged - 1];
        for (0..pages) |page| {
            const part = before[page * os.page_size ..][0..os.page_size];
            if (std.mem.eql(u8, part, self.heap.page(page))) continue;
            @memcpy(self.heap.page(page), part);
            self.image.?.pending.set(page);
        }
    }

    /// False when it failed.
    pub fn commit(self: *Stage) bool {
        self.tried.append(gpa, gpa.dupe(u8, self.heap.memory) catch unreachable) catch unreachable;
        const index = self.tried.items.len;
        _ = self.heap.commit(self.image.?, null) catch return false;
        self.acknowledged = index;
        return true;
    }

    /// The first pages are changed and committed, and nothing fails.
    pub fn put(self: *Stage, count: usize) !void {
        self.change(count);
        if (!self.commit()) return error.CommitFailed;
    }

    /// The next call of that kind fails. Whether the commit did.
    pub fn failsAt(self: *Stage, kind: machine_.Kind) bool {
        self.processes[0].fails_on = kind;
        defer self.processes[0].fails_on = null;
        return !self.commit();
    }

    pub fn close(self: *Stage) void {
        const image = self.image orelse return;
        self.image = null;
        image.close();
        self.heap.history.deinit();
        self.heap.history = .{};
    }

    // ---- ends

    /// At a call of that kind, so many steps on or later, the process dies or the power fails.
    pub fn crashes(self: *Stage, crash: machine_.Crash, kind: ?machine_.Kind, later: u64) void {
        self.machine.crash = crash;
        self.machine.crash_on = kind;
        self.machine.crash_at = self.machine.steps + 1 + later;
    }

    /// What died is cleared away.
    pub fn end(self: *Stage) void {
        if (self.machine.power_lost) return self.cut();
        self.processes[0].dead = true;
        self.close();
        self.machine.reap(&self.processes[0], false);
        self.revive();
    }

    /// The power fails.
    pub fn cut(self: *Stage) void {
        for (&self.processes) |*process| process.dead = true;
        self.close();
        self.machine.restart();
        self.revive();
    }

    fn revive(self: *Stage) void {
        self.machine.crash_at = never;
        for (&self.processes) |*process| process.dead = false;
    }

    // ---- what is found

    /// The image is opened to go on with it, by somebody who knows nothing: what is wrong with it, if anything.
    pub fn find(self: *Stage) ?[]const u8 {
        var options = self.options;
        options.mode = .write;
        const image = Image.open(options) catch |err| {
            return if (err == error.NOT_FOUND and self.acknowledged == 0) null else "an image is refused for no reason";
        };
        self.image = image;
        self.heap.restore(image, null) catch return "an image that opens cannot be restored";
        self.machine.unmap(@intFromPtr(self.heap.memory.ptr), len);
        var at = self.tried.items.len;
        while (at > 0 and at >= self.acknowledged) : (at -= 1) {
            if (!std.mem.eql(u8, self.tried.items[at - 1], self.heap.memory)) continue;
            self.acknowledged = at;
            return self.machine.medium.offence;
        }
        return "what an image opens with is neither the last acknowledged commit nor a later one";
    }

    /// Whether the image would give just what the heap is now.
    pub fn holds(self: *Stage, image: *Image) !bool {
        self.machine.unmap(self.scratch, len);
        _ = try image.build(try image.point(null), self.scratch, len);
        defer self.machine.unmap(self.scratch, len);
        return std.mem.eql(u8, @as([*]const u8, @ptrFromInt(self.scratch))[0..len], self.heap.memory);
    }

    /// The second process opens the image to read it, and maps what it finds.
    pub fn read(self: *Stage) !*Image {
        var options = self.options;
        options.mode = .read;
        options.disk = self.processes[1].disk();
        const image = try Image.open(options);
        errdefer image.close();
        _ = try image.build(try image.point(null), self.scratch, len);
        return image;
    }

    pub fn endReading(self: *Stage, image: *Image) void {
        image.close();
        self.machine.unmap(self.scratch, len);
    }

    pub fn log(self: *Stage) *medium_.Inode {
        for (self.machine.names.entries.items) |*entry| if (std.mem.indexOf(u8, entry.name.slice(), "-log-") != null) return entry.inode;
        unreachable;
    }
};

/// What a process does beside another, one call at a time.
pub fn Part(comptime Context: type, comptime act: fn (*Context) anyerror!void) type {
    return struct {
        fiber: Fiber,
        context: *Context,
        failed: ?anyerror = null,

        const Self = @This();

        pub fn init(owner: u8, context: *Context) Self {
            return .{ .fiber = .init(owner), .context = context };
        }

        /// Must not move from here on.
        pub fn begin(self: *Self) void {
            self.fiber.start(run, self);
        }

        pub fn goOn(self: *Self) void {
            if (!self.fiber.ended) self.fiber.goOn();
        }

        pub fn goTo(self: *Self, count: usize) void {
            for (0..count) |_| self.goOn();
        }

        pub fn finish(self: *Self) void {
            while (!self.fiber.ended) self.fiber.goOn();
        }

        pub fn deinit(self: *Self) void {
            os.freePages(self.fiber.stack);
        }

        fn run(context: *anyopaque) void {
            const self: *Self = @ptrCast(@alignCast(context));
            act(self.context) catch |err| {
                self.failed = err;
            };
        }
    };
}

/// Both go on, as chance has it, until both have ended.
pub fn finishBoth(random: std.Random, a: *Fiber, b: *Fiber) void {
    while (!a.ended or !b.ended) {
        const one = if (a.ended) b else if (b.ended or random.boolean()) a else b;
        one.goOn();
    }
}
