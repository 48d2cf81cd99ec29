"""A group's replication log: records, segment files, recovery, retention.

    record        one committed transaction as bytes, and back
    segment       one preallocated file of records
    recovery      what a directory of segments holds after a crash
    durable_mark  how far the log once reached, so that a lost end is found
    history       the table of epochs as the log grows, is cut back, and is dropped from the front
    tail          the newest records in memory, bounded in bytes
    contents      what the log holds, in memory, for any thread to ask
    log           the log itself: append, sync, read, cut back, reset, drop
    retention     how much of the log may be dropped: a pure decision

It is written once and used by primary and standby.
"""
