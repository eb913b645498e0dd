//! Reading back what images hold, and judging it by the model.
//!
//! Invariant: what is found is exactly one commit that was tried; the last acknowledged one or a later
//! one where it is an image's last.

const std = @import("std");
const actor_ = @import("actor.zig");
const commits = @import("commits.zig");
const image_ = @import("../image.zig");
const model_ = @import("model.zig");
const os = @import("../../os/os.zig");
const Actor = actor_.Actor;
const Image = image_.Image;
const Stop = actor_.Stop;
const page_size = os.page_size;
const span_len = actor_.span_len;
const gpa = std.heap.smp_allocator;

/// The values in a heap's memory; a violation when a page is a mixture.
fn memory(self: *Actor, address: usize, into: *model_.Values) Stop!void {
    into.* = @splat(0);
    for (0..self.pages()) |page| {
        const bytes: *const [page_size]u8 = @ptrFromInt(address + page * page_size);
        into[page] = model_.read(bytes) orelse {
            self.world.fail("page {d} is a mixture of several", .{page});
            return error.Stop;
        };
    }
}

/// Builds `point` at the scratch address and finds which attempt it is, from `floor` on.
pub fn identify(self: *Actor, which: usize, image: *Image, point: image_.Point, floor: usize) Stop!usize {
    const place = self.path(which);
    self.world.machine.unmap(self.scratch, span_len);
    const len = self.pages() * page_size;
    _ = image.build(point, self.scratch, len) catch |err| {
        // Folded away meanwhile.
        if (err == error.NO_EPOCH and self.world.idle) return error.Stop;
        return self.judge("building a heap fails for no reason", err);
    };
    var values: model_.Values = undefined;
    try memory(self, self.scratch, &values);
    const model = &self.world.model;
    // The heap's number is the upper half of its UUID.
    const heap: u32 = @truncate(@as(u128, @bitCast(point.identity.uuid)) >> 64);
    if (place.findFrom(model, floor, point.epoch(), &values, .{ .heap = heap, .used = point.identity.used })) |found| {
        self.world.counts.checked += 1;
        place.attempts.items[found].epoch = point.epoch();
        place.attempts.items[found].epoch_last = 0;
        return found;
    }
    if (place.findFrom(model, floor, point.epoch(), &values, null) != null) {
        self.world.fail("epoch {d} of {s} has another commit's identity", .{ point.epoch(), place.name });
    } else if (place.findFrom(model, 0, point.epoch(), &values, null)) |found| {
        self.world.fail("{s} opens at epoch {d} (attempt {d}), older than what was acknowledged, epoch {d} (attempt {d})", .{
            place.name, point.epoch(), found, place.attempts.items[floor].epoch, floor,
        });
    } else self.world.fail("{s} opens at epoch {d} with content that was never committed", .{ place.name, point.epoch() });
    return error.Stop;
}

/// Every epoch in the list is one that was committed; those within `keep` are there.
pub fn checkEpochs(self: *Actor, which: usize, image: *Image, head: usize) Stop!void {
    const place = self.path(which);
    self.process.failed = false;
    const list = image.epochs(gpa) catch |err| return self.judge("listing epochs fails for no reason", err);
    defer gpa.free(list);
    if (list.len == 0) return;
    for (list[1..], list[0 .. list.len - 1]) |after, before| if (after.epoch <= before.epoch) {
        self.world.fail("epochs of {s} are out of order: {d}, then {d}", .{ place.name, before.epoch, after.epoch });
        return error.Stop;
    };
    if (image.mode != .read) {
        var at: ?usize = head;
        for (0..self.world.keep) |_| {
            const attempt = &place.attempts.items[at orelse break];
            if (attempt.gone) break;
            if (!listed(list, attempt.epoch)) {
                if (self.world.machine.trace) for (place.attempts.items, 0..) |each, index| {
                    std.debug.print("attempt {d}: epoch {d}, parent {?d}, state {d}{s}{s}\n", .{ index, each.epoch, each.parent, each.state, if (each.acknowledged) ", acknowledged" else "", if (each.gone) ", gone" else "" });
                };
                self.world.fail("epoch {d} of {s}, within keep, is gone", .{ attempt.epoch, place.name });
                return error.Stop;
            }
            at = attempt.parent;
        }
        for (place.attempts.items) |*attempt| {
            if (!listed(list, attempt.epoch)) attempt.gone = true;
        }
    }
    if (!self.chance(30)) return;
    for (list) |epoch| {
        const point = image.point(epoch.epoch) catch |err| {
            if (err == error.NO_EPOCH and self.world.idle) return;
            return self.judge("an epoch that is listed cannot be found", err);
        };
        _ = try identify(self, which, image, point, 0);
    }
}

fn listed(list: []const image_.Epoch, epoch: u64) bool {
    for (list) |each| if (each.epoch == epoch) return true;
    return false;
}

/// What the image would give now is what was committed last.
pub fn readBack(self: *Actor) Stop!void {
    try readImage(self, self.below(2));
}

pub fn readImage(self: *Actor, which: usize) Stop!void {
    const image = self.images[which] orelse return;
    const place = self.path(which);
    try commits.drain(self);
    if (image.head() == null) return;
    self.process.failed = false;
    const point = image.point(null) catch |err| return self.judge("an image has no last commit", err);
    const found = try identify(self, which, image, point, 0);
    const last = place.last orelse return;
    // A base whose directory sync failed may stand there.
    if (found < last) self.world.fail("{s} is at epoch {d} while it is open, acknowledged was {d}", .{ place.name, point.epoch(), self.attemptOf(which, last).epoch });
    if (found == last and self.chance(30)) try checkEpochs(self, which, image, last);
}
