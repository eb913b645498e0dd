//! The steps of a session that writes: what its user does to heap and images, one after the other.
//!
//! Invariant: a step ends with the model knowing all that it tried.

const std = @import("std");
const actor_ = @import("actor.zig");
const commits = @import("commits.zig");
const fiber = @import("fiber.zig");
const model_ = @import("model.zig");
const os = @import("../../os/os.zig");
const reading = @import("reading.zig");
const Actor = actor_.Actor;
const FoldTask = actor_.FoldTask;
const Stop = actor_.Stop;
const page_size = os.page_size;
const gpa = std.heap.smp_allocator;

pub fn step(self: *Actor) Stop!void {
    try commits.hear(self);
    if (self.chance(self.world.copies_percent)) return self.copyImage(if (self.world.two) self.below(2) else 0);
    if (self.chance(50)) switch (self.world.theme) {
        .any, .restarts, .first, .slots => {},
        .folds => return switch (self.below(6)) {
            0, 1 => foldBeside(self),
            2 => fold(self),
            3, 4 => goBackBeside(self),
            else => goBack(self),
        },
        .pair => return switch (self.below(8)) {
            0 => tellTracker(self),
            1 => readBackOrUse(self),
            2, 3 => swapImage(self),
            4 => tellWhileClosed(self),
            5 => freeAndUse(self),
            else => oneThenOther(self),
        },
        .bases => return commitAll(self),
        .renames => return switch (self.below(5)) {
            0, 1 => commitAll(self),
            2, 3 => commitLittle(self),
            else => fold(self),
        },
        .attempts, .returns => return commitLittle(self),
        .scarce => return switch (self.below(8)) {
            0, 1, 2 => commitAll(self),
            3, 4 => commitLittle(self),
            5 => goBack(self),
            6 => commitSomewhere(self),
            else => for (0..self.below(40)) |_| fiber.yield(),
        },
        .scenes, .trials => unreachable,
        .asked => {
            self.touch(self.below(self.pages()));
            return commitSomewhere(self);
        },
        .claims => for (0..self.below(20)) |_| fiber.yield(),
    };
    switch (self.below(26)) {
        0, 1, 2, 3 => try fold(self),
        4, 5 => try goBack(self),
        6 => freePages(self),
        7, 8 => try swapImage(self),
        9, 10 => try reading.readBack(self),
        // Others go on meanwhile.
        11 => for (0..self.below(40)) |_| fiber.yield(),
        12 => tellTracker(self),
        13 => useFree(self),
        else => {
            touchSome(self);
            try commitSomewhere(self);
        },
    }
}

fn commitSomewhere(self: *Actor) Stop!void {
    const which = if (self.images[0] == null) 1 else if (self.images[1] == null) 0 else self.below(2);
    if (self.images[which] == null) return swapImage(self);
    if (self.chance(self.world.asked_percent)) return commits.ask(self, which);
    try commits.make(self, which);
    // What failed is tried again, as it is or with less.
    if (self.images[which] == null or !self.unsure[which] or !self.chance(if (self.world.theme == .first) 80 else 30)) return;
    if (self.world.theme == .first and self.chance(50)) freePages(self);
    try commits.make(self, which);
}

fn readBackOrUse(self: *Actor) Stop!void {
    if (self.chance(50)) return reading.readBack(self);
    useFree(self);
}

/// Nearly all of the heap changes: a new base.
fn commitAll(self: *Actor) Stop!void {
    for (0..self.pages()) |page| if (!self.chance(10)) self.touch(page);
    try commitSomewhere(self);
}

/// A record, short or with pages in a row. One that fails is mostly tried again, with some of its changes
/// undone, so that something shorter stands in its place.
fn commitLittle(self: *Actor) Stop!void {
    const run = if (self.pages() > 16 and self.chance(50)) 16 + self.below(self.pages() - 16) else 0;
    for (0..run) |page| self.touch(page);
    for (0..1 + self.below(4)) |_| self.touch(self.below(self.pages()));
    try commitSomewhere(self);
    for (0..2) |which| {
        if (self.images[which] == null or !self.unsure[which]) continue;
        // Or the image is opened anew, with what may never have been stored.
        const returns = self.world.theme == .returns;
        if (self.chance(if (!returns) 10 else if (self.world.fails_one_in > 6) 80 else 0)) {
            try commits.drain(self);
            self.closeImage(which);
            try self.openAgain(which);
            for (0..self.below(4)) |_| try reading.readImage(self, which);
            continue;
        }
        if (!self.chance(70)) continue;
        undo(self);
        self.touch(self.below(self.pages()));
        try commits.make(self, which);
        // Whether what the first one left is gone shows when nothing came after it.
        if (self.images[which] == null or !self.chance(if (returns) 80 else 30)) continue;
        try commits.drain(self);
        self.closeImage(which);
        try self.openAgain(which);
    }
}

/// Some of what was changed since the last commit is as it was again.
fn undo(self: *Actor) void {
    const state = &self.world.model.states.items[self.current orelse return];
    for (0..self.pages()) |page| {
        if (self.values[page] == state.values[page] or self.free[page] or self.chance(30)) continue;
        self.values[page] = state.values[page];
        self.written[page] = true;
        model_.fill(@ptrFromInt(self.live + page * page_size), state.values[page]);
    }
}

/// Free pages are in use again, as they were.
fn useFree(self: *Actor) void {
    for (self.free[0..self.pages()]) |*free| free.* = free.* and self.chance(60);
}

/// Pages are changed, free for one commit, and in use again as they were.
fn freeAndUse(self: *Actor) Stop!void {
    touchSome(self);
    freePages(self);
    try commitSomewhere(self);
    self.free = @splat(false);
    try commitSomewhere(self);
}

/// One image gets a commit, and the other one the same heap, or nearly: with a page changed, in the place of
/// another, changed back, or after going back. They may not call it the same commit then.
fn oneThenOther(self: *Actor) Stop!void {
    const first = self.below(2);
    const other = 1 - first;
    if (self.images[0] == null or self.images[1] == null) return swapImage(self);
    const kind = self.below(6);
    if (kind == 1) freePages(self);
    self.touch(self.below(self.pages()));
    try commits.make(self, first);
    if (self.images[0] == null or self.images[1] == null) return;
    switch (kind) {
        0 => self.touch(self.below(self.pages())),
        1 => moveFree(self),
        2 => try goBackIn(self, first),
        3 => if (self.standing[other]) |index| becomeAgain(self, self.attemptOf(other, index).state),
        4, 5 => {
            // Mostly one that fails before it can be found.
            if (self.world.options.faults.errors) self.process.fails_in = 2 + @as(u32, @intCast(self.below(5)));
            defer self.process.fails_in = 0;
            self.touch(self.below(self.pages()));
            try commits.make(self, first);
        },
        else => unreachable,
    }
    if (self.images[0] == null or self.images[1] == null) return;
    if (self.chance(30)) return commits.ask(self, other);
    try commits.make(self, other);
}

/// As many pages are in use as before, and others.
fn moveFree(self: *Actor) void {
    const free = std.mem.findScalar(bool, self.free[0..self.pages()], true) orelse return;
    const used = self.below(self.pages());
    std.mem.swap(bool, &self.free[free], &self.free[used]);
}

/// The heap's pages are those of an earlier state again.
fn becomeAgain(self: *Actor, index: usize) void {
    const state = &self.world.model.states.items[index];
    if (state.heap != self.heap) return;
    for (0..self.pages()) |page| {
        if (self.values[page] == state.values[page]) continue;
        self.free[page] = false;
        self.values[page] = state.values[page];
        self.written[page] = true;
        model_.fill(@ptrFromInt(self.live + page * page_size), state.values[page]);
    }
}

/// What changed is told to the images, and no commit comes of it.
fn tellTracker(self: *Actor) void {
    touchSome(self);
    if (self.images[0] == null and self.images[1] == null) return;
    self.collect();
}

/// A commit comes while a fold is under way; then nothing does that would sync its log again.
fn foldBeside(self: *Actor) Stop!void {
    try fold(self);
    for (&self.folds, 0..) |*task, which| {
        if (task.fiber.ended or self.images[which] == null) continue;
        self.touch(self.below(self.pages()));
        try commits.make(self, which);
        while (!task.fiber.ended) fiber.yield();
        try self.alive();
        for (0..1 + self.below(3)) |_| try reading.readImage(self, which);
    }
}

/// The heap goes back while a fold is under way, and goes on from there.
fn goBackBeside(self: *Actor) Stop!void {
    for (0..1 + self.below(3)) |_| {
        self.touch(self.below(self.pages()));
        try commitSomewhere(self);
    }
    try fold(self);
    for (0..self.below(10)) |_| fiber.yield();
    try goBack(self);
    self.touch(self.below(self.pages()));
    try commitSomewhere(self);
    try reading.readBack(self);
}

/// Both images hold one commit; what changes while one of them is closed is told to the other only.
fn tellWhileClosed(self: *Actor) Stop!void {
    self.free = @splat(false);
    for (0..2) |which| if (self.images[which] != null) try commits.make(self, which);
    const which = self.below(2);
    if (self.images[0] == null or self.images[1] == null) return;
    self.closeImage(which);
    tellTracker(self);
    try self.openAgain(which);
    if (self.images[which] != null) try commits.make(self, which);
}

pub fn touchSome(self: *Actor) void {
    const kind = self.below(12);
    if (kind == 0) return;
    if (kind == 1) {
        const first = self.below(self.pages());
        const count = @min(16 + self.below(8), self.pages() - first);
        for (first..first + count) |page| self.touch(page);
        return;
    }
    const count = if (kind == 2) self.pages() * 3 / 4 else 1 + self.below(3);
    for (0..count) |_| self.touch(self.below(self.pages()));
}

/// Pages become free; some are given back to the system and zero from then on.
fn freePages(self: *Actor) void {
    const first = self.below(self.pages());
    const count = @min(1 + self.below(6), self.pages() - first);
    const give_back = self.chance(40);
    for (first..first + count) |page| {
        self.free[page] = self.chance(80);
        if (!self.free[page] or !give_back) continue;
        self.values[page] = 0;
        os.giveBack(self.live + page * page_size, page_size) catch unreachable;
        self.written[page] = false;
        // As the heap does: an image that is not open now can only compare all of it later.
        for (self.images) |slot| if (slot) |image| image.pending.set(page) else {
            self.history.stray = true;
        };
    }
}

fn fold(self: *Actor) Stop!void {
    const which = if (self.images[1] == null) 0 else self.below(2);
    const image = self.images[which] orelse return;
    const task = &self.folds[which];
    if (!task.fiber.ended) return;
    task.actor = self;
    task.which = which;
    task.image = image;
    task.begun = false;
    task.head = self.path(which).last;
    task.failures = self.process.failures;
    self.process.failed = false;
    self.say("fold {s}", .{self.path(which).name});
    task.fiber.start(FoldTask.run, task);
    // Half of them run to their end at once.
    if (self.chance(50)) while (!task.fiber.ended) fiber.yield();
    if (task.fiber.ended and self.chance(50)) try reading.readImage(self, which);
}

fn goBack(self: *Actor) Stop!void {
    try goBackIn(self, self.below(2));
}

fn goBackIn(self: *Actor, which: usize) Stop!void {
    const image = self.images[which] orelse return;
    try commits.drain(self);
    if (image.head() == null) return;
    self.process.failed = false;
    const list = image.epochs(gpa) catch |err| return self.judge("listing epochs fails for no reason", err);
    defer gpa.free(list);
    const last = list[list.len - 1].epoch;
    // Epochs of other branches can be reached too, while they last.
    const epoch = if (self.chance(70)) list[self.below(list.len)].epoch else 1 + self.below(@intCast(last));
    try self.restoreFrom(which, epoch);
}

/// Closes an image or opens it again, beside a heap that may have changed meanwhile.
fn swapImage(self: *Actor) Stop!void {
    const which = if (self.world.two) self.below(2) else 0;
    try commits.drain(self);
    if (self.images[which] != null) return self.closeImage(which);
    try self.openAgain(which);
}
