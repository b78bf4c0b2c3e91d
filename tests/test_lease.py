"""A lease runs out on silence, and not on having had no core."""

from aar_swarm.lease import Lease


def test_silence_ends_it_after_its_time_and_some_looks():
    lease = Lease(100, now_ns=0)
    assert [lease.has_run_out(now) for now in (10, 20, 30, 40, 50, 100)] == [False] * 6
    assert lease.has_run_out(101)


def test_who_had_no_core_may_read_first():
    lease = Lease(100, now_ns=0)
    assert not lease.has_run_out(5000) and not lease.has_run_out(5001)
    lease.renew(5002)  # what had come meanwhile
    assert [lease.has_run_out(5003 + late) for late in (0, 0, 200)] == [False] * 3
    assert lease.has_run_out(5203)


def test_the_wait_for_a_core_is_no_silence():
    waited = [0]
    lease = Lease(100, 0, lambda: waited[0])
    assert not lease.has_run_out(10)
    waited[0] = 300
    assert [lease.has_run_out(now) for now in (320, 330, 340, 400, 411)] == [False, False, False, False, True]
    lease.renew(500)
    assert not lease.has_run_out(510)
    assert [lease.has_run_out(now) for now in (590, 595, 600, 601)] == [False, False, False, True]
