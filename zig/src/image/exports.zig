//! What TypeScript calls of images that no heap has open; a part of the ABI (abi.zig).

const std = @import("std");
const abi = @import("../abi.zig");
const belongs = @import("../heap/belongs.zig");
const errors = @import("../errors.zig");
const os = @import("../os/os.zig");
const image = @import("image.zig");

const Error = errors.Error;
const Buffer = abi.Buffer;
const fail = errors.fail;
const whole = abi.whole;
const result = abi.result;

pub const functions = struct {
    /// Copies an image, which may be in use, with all its epochs. `args`: FileArgs. `text`: both paths.
    /// Fills FileReport.
    pub fn ph_image_copy(args: Buffer, text: Buffer, out: Buffer) callconv(.c) f64 {
        return result(copy(args, text, out));
    }

    /// Reads and checks all of an image, which may be in use. `text`: its path, of `len` bytes. Fills
    /// FileReport.
    pub fn ph_image_verify(text: Buffer, len: f64, out: Buffer) callconv(.c) f64 {
        return result(verify(text, len, out));
    }
};

fn copy(args: Buffer, text: Buffer, out: Buffer) Error!void {
    const in = try abi.record(abi.records.FileArgs, args);
    const into = try abi.record(abi.records.FileReport, out);
    const begun = os.nowNs();
    const from_len = whole(in.from_len) orelse 0;
    const to_len = whole(in.to_len) orelse 0;
    const bytes: []const u8 = if (text) |pointer| pointer[0 .. from_len + to_len] else "";
    if (bytes.len == 0) return missing();
    into.* = reportOf(try image.copy(.{
        .from = bytes[0..from_len],
        .to = bytes[from_len..],
        .replace = in.replace != 0,
        .describer = belongs.describe,
    }), begun);
}

fn verify(text: Buffer, len: f64, out: Buffer) Error!void {
    const into = try abi.record(abi.records.FileReport, out);
    const begun = os.nowNs();
    const bytes = (text orelse return missing())[0 .. whole(len) orelse 0];
    into.* = reportOf(try image.verifyFile(.real, bytes, belongs.describe), begun);
}

fn missing() Error {
    return fail(.INVALID_ARGUMENT, .{}, "The buffer `text` is empty", .{});
}

fn reportOf(report: image.FileReport, begun: u64) abi.records.FileReport {
    return .{
        .epoch = @floatFromInt(report.epoch),
        .epochs = @floatFromInt(report.epochs),
        .pages = @floatFromInt(report.pages),
        .bytes = @floatFromInt(report.bytes),
        .duration_ms = @as(f64, @floatFromInt(os.nowNs() - begun)) / std.time.ns_per_ms,
    };
}
