//! Bugs on purpose: each one leaves out a sync or a part of a rule of docs/engine.md, and the
//! simulator has to notice (`deno task simulate --plant all`).
//!
//! Invariant: where neither tests nor the simulator are built `is` is false at compile time, and
//! nothing of this is in the library.

const builtin = @import("builtin");
const root = @import("root");

pub const enabled = builtin.is_test or @hasDecl(root, "perm_simulator");

pub const Plant = enum {
    none,
    // Every sync, left out: it answers that all is well.
    sync_record,
    sync_settled_log,
    sync_settled_dir,
    sync_new_base,
    sync_new_log,
    sync_late_records,
    sync_dir_before_rename,
    sync_dir_after_rename,
    // The parts of the rules.
    r1_next_before_sync,
    r2_tail_not_cut,
    r2_log_lives_on,
    r2_cut_after_footer,
    r2_footer_lives_on,
    r2_number_again,
    r3_path_unchecked,
    r3_replace_free_path,
    r3_unlink_before_dir_sync,
    r3_ack_without_dir_sync,
    r3_log_lives_on,
    r4_not_truncated,
    r4_not_all_again,
    r5_hold_ends_early,
    r6_restore_beside_fold,
    r6_fold_elsewhere,
    r7_base_not_looked_at,
    r7_new_not_looked_at,
    r7_no_second_look,
    r7_base_unlocked,
    r7_stale_new_unlocked,
    r7_mapping_keeps_lock,
    r7_claim_left,
    r7_log_unlocked,
    r8_no_second_look,
    r8_foreign_log,
    r9_pages_unchecked,
    r9_damage_is_torn,
    r9_torn_is_damage,
    r9_one_look,
    r9_beside_writer,
    r10_record_not_rewritten,
    r10_length_unchanged,
    r10_unlink_before_settled,
    r10_foreign_unlinked,
    r11_pending_starts_empty,
    r11_other_pending_left,
    r11_stray_forgotten,
    r11_failure_forgets,
    r11_one_image_told,
    r11_inflight_left,
    r11_lost_track_since,
    r12_no_new_line,
    r12_newest_by_number,
    r12_lines_not_folded,
    r12_no_guard,
    r13_failed_scan_trusted,
    r14_old_content_back,
    // The parts of writing a base over the one before the last.
    reuse_own_map,
    reuse_not_sole,
    reuse_unsure_exchange,
    reuse_log_left,
    reuse_damaged,
    reuse_not_marked,
    // The parts of giving a log the space of the one before.
    room_not_sole,
    room_not_synced,
    room_dir_not_synced,
    room_name_left,
    holes_not_recorded,
    free_pages_trusted,
    // Commits in the background: one that was copied while the one before it failed is made all the same.
    async_failed_before,
    // Folds that come by themselves.
    idle_close_unwaited,
    // Copies.
    copy_unsynced,
    copy_unread,
    // Shared heaps.
    shared_sync,
    shared_sync_dir,
    shared_slot_over,
    shared_slot_unsettled,
    shared_length_unchanged,
    shared_note_believed,
    shared_left_early,
};

pub var active: Plant = .none;
/// Of `r1_next_before_sync`: another commit to the same image is asked for already.
pub var next_waits: bool = false;

pub inline fn is(comptime which: Plant) bool {
    return enabled and active == which;
}
