//! Copies of images that others commit to, fold and replace meanwhile: made beside everything else, and
//! judged by what the model knows of the original.
//!
//! Invariant: what stands under a copy's name is, whatever happened to whoever made it, a whole image of
//! the original's commits, and not older than the last copy that was acknowledged.

const std = @import("std");
const actor_ = @import("actor.zig");
const image_ = @import("../image.zig");
const reading = @import("reading.zig");
const Actor = actor_.Actor;
const Image = image_.Image;
const Stop = actor_.Stop;

/// Of each image there may be one.
pub const names = [2][]const u8{ "c", "d" };

/// What is known of a copy.
pub const Copy = struct {
    /// The attempt that the original had acknowledged when the last copy that returned was begun.
    floor: ?usize = null,
    /// The last copy that returned was written while bits flipped. What a copy holds was read back, but not the
    /// seal that says of its last sync that it returned, and that is written after.
    flipped: bool = false,
    /// Somebody is making one.
    busy: bool = false,
};

/// Copies the image, over the copy before if there is one.
pub fn make(self: *Actor, which: usize, flips: bool) Stop!void {
    const world = self.world;
    const known = &world.model.copies[which];
    if (known.busy) return;
    known.busy = true;
    defer known.busy = false;
    const place = self.path(which);
    const floor = place.last;
    self.process.failed = false;
    // Only where nobody else of this process writes.
    const alone = !self.world.idle and self.asked.items.len == 0 and self.folds[0].fiber.ended and self.folds[1].fiber.ended;
    self.process.flips_one_in = if (flips and alone and self.chance(20)) 30 else 0;
    self.process.flipped = false;
    self.say("copy {s} to {s}", .{ place.name, names[which] });
    const result = image_.copy(.{ .disk = self.process.disk(), .from = place.name, .to = names[which], .replace = true });
    self.process.flips_one_in = 0;
    const report = result catch |err| {
        self.say("copy failed: {t}", .{err});
        // What was written otherwise than it was meant has to be noticed.
        if (err == error.IO and self.process.flipped) return;
        if (err == error.NOT_FOUND and floor == null) return;
        if (self.excused()) return self.alive();
        // Who died over a copy keeps its locks until all of it has ended.
        if (err == error.BUSY and world.anyDead()) return;
        return self.judge("a copy fails for no reason", err);
    };
    try self.alive();
    known.floor = floor orelse 0;
    known.flipped = self.process.flipped;
    world.counts.copies += 1;
    const found = try look(self, which);
    if (found) |index| if (self.attemptOf(which, index).epoch != report.epoch) {
        world.fail("a copy of {s} says that it is of epoch {d}, and is of {d}", .{ place.name, report.epoch, self.attemptOf(which, index).epoch });
        return error.Stop;
    };
}

/// Reads a copy as anybody may: the attempt that it holds last.
pub fn look(self: *Actor, which: usize) Stop!?usize {
    const known = &self.world.model.copies[which];
    const floor = known.floor;
    self.process.failed = false;
    const image = Image.open(.{ .disk = self.process.disk(), .path = names[which], .mode = .read, .background = false, .verify = true }) catch |err| {
        if (err == error.NOT_FOUND and floor == null) return null;
        if (self.excused()) return error.Stop;
        return self.judge("a copy cannot be read", err);
    };
    defer image.close();
    try self.alive();
    if (image.dropped and !known.flipped) {
        self.world.fail("a copy of {s} tells of a dropped commit", .{self.path(which).name});
        return error.Stop;
    }
    const point = image.point(null) catch |err| return self.judge("a copy holds no commit", err);
    const found = try reading.identify(self, which, image, point, floor orelse 0);
    const list = image.epochs(std.heap.smp_allocator) catch |err| return self.judge("listing a copy's epochs fails", err);
    defer std.heap.smp_allocator.free(list);
    for (list) |epoch| {
        const at = image.point(epoch.epoch) catch |err| return self.judge("a copy lacks an epoch that it lists", err);
        _ = try reading.identify(self, which, image, at, 0);
    }
    self.world.machine.unmap(self.scratch, actor_.span_len);
    return found;
}

/// In the end, with nothing failing any more: a copy can be made, and stands alone.
pub fn calm(self: *Actor, which: usize) Stop!void {
    _ = try look(self, which);
    if (self.world.machine.names.find(names[which]) == null and !self.chance(50)) {
        // A crash may have left parts under names that only its next writer removes.
        if (!self.world.copied) return;
    }
    try make(self, which, false);
}
