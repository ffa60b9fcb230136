"""How the whole of admission, order and window behaves under load, in simulated time."""

from __future__ import annotations

import pytest

from tests.fakes.simulated_fleet import Fleet, Model, Tenant

SLOW = Model(fixed=0.02)
JOINING = Model(fixed=0.1, each=0.001, largest=32)


def quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


@pytest.mark.parametrize(
    ("model", "slots", "deadline"),
    [
        (SLOW, 2, 2.0),
        (SLOW, 2, 0.2),
        (JOINING, 1, 2.0),
        (Model(fixed=0.5), 1, 2.0),
        (Model(fixed=0.3), 4, 2.0),
    ],
    ids=["slow", "slow, short deadline", "joining", "very slow", "four slots"],
)
async def test_at_four_times_its_capacity_a_model_does_its_work_for_those_who_wait(
    model: Model, slots: int, deadline: float
) -> None:
    capacity = model.rate(slots)
    fleet, tenant = Fleet(model, slots=slots), Tenant("a", 4 * capacity, deadline)

    await fleet.run(20.0, tenant)

    assert tenant.goodput(5.0, 17.0) >= 0.8 * capacity
    assert quantile(tenant.waits(5.0), 0.99) <= deadline
    assert fleet.wasted <= 0.1 * len(tenant.answers) + 2 * slots * model.largest
    assert tenant.failures["deadline_unreachable"] > 0
    assert max(tenant.late_refusals, default=0.0) <= deadline


async def test_a_runtime_that_says_nothing_of_its_calls_is_kept_busy() -> None:
    capacity = JOINING.rate(1)
    fleet, tenant = Fleet(JOINING, slots=1, reports=False), Tenant("a", 4 * capacity)

    await fleet.run(20.0, tenant)

    assert tenant.goodput(5.0, 17.0) >= 0.8 * capacity


@pytest.mark.parametrize("share", [0.5, 0.8])
async def test_below_its_capacity_nobody_is_refused(share: float) -> None:
    fleet, tenant = Fleet(SLOW), Tenant("a", share * SLOW.rate(2))

    await fleet.run(20.0, tenant)

    assert not tenant.failures


async def test_after_an_overload_it_is_as_before_within_a_moment() -> None:
    fleet = Fleet(SLOW)
    steady, crowd = Tenant("steady", 50.0), Tenant("crowd", 350.0, start=5.0, stop=10.0)

    await fleet.run(20.0, steady, crowd)

    after = [wait for at, wait in steady.answers if at >= 13.0]
    assert quantile(sorted(after), 0.99) < 0.1
    assert steady.goodput(13.0, 19.0) >= 0.8 * 50.0


async def test_a_burst_after_a_long_pause_is_not_judged_by_what_was() -> None:
    fleet = Fleet(Model(fixed=0.5), slots=1)
    before, after = Tenant("before", 8.0, stop=10.0), Tenant("after", 60.0, start=60.0)
    fleet.at(40.0, lambda: setattr(fleet, "model", Model(fixed=0.005)))

    await fleet.run(65.0, before, after)

    assert before.failures["deadline_unreachable"] > 0
    assert not after.failures


async def test_a_model_that_becomes_faster_under_overload_is_found_out() -> None:
    fleet, tenant = Fleet(Model(fixed=0.2)), Tenant("a", 80.0)
    fleet.at(10.0, lambda: setattr(fleet, "model", SLOW))

    await fleet.run(25.0, tenant)

    assert tenant.failures["deadline_unreachable"] > 0
    assert tenant.goodput(17.0, 23.0) >= 0.9 * 80.0


async def test_a_model_that_becomes_slower_than_the_deadline_is_tried_again() -> None:
    fleet, tenant = Fleet(SLOW), Tenant("a", 80.0, deadline=1.0)
    fleet.at(5.0, lambda: setattr(fleet, "model", Model(fixed=3.0)))
    fleet.at(15.0, lambda: setattr(fleet, "model", SLOW))

    await fleet.run(30.0, tenant)

    assert tenant.goodput(8.0, 14.0) == 0.0
    assert tenant.goodput(22.0, 28.0) >= 0.9 * 80.0


@pytest.mark.parametrize("model", [SLOW, JOINING], ids=["slow", "joining"])
async def test_a_tenant_is_not_kept_waiting_by_anothers_backlog(model: Model) -> None:
    """Twice as long as alone and a call: P14 of the promises, with the bounds out of the way."""
    alone, beside, crowd = (
        Tenant("b", 1.0),
        Tenant("b", 1.0),
        Tenant("a", 1e6, deadline=1e6, stop=0.01),
    )
    await Fleet(model).run(60.0, alone)

    fleet = Fleet(model, max_queued_per_tenant=20_000, max_queued_per_model=20_000)
    await fleet.run(60.0, crowd, beside)

    assert len(crowd.answers) > 0
    assert not beside.failures
    assert quantile(beside.waits(5.0), 0.95) <= 2 * quantile(alone.waits(), 0.95) + model.seconds(
        model.largest
    )


async def test_tenants_who_all_ask_for_too_much_get_alike() -> None:
    fleet = Fleet(SLOW)
    greedy, modest = Tenant("greedy", 400.0), Tenant("modest", 100.0)

    await fleet.run(20.0, greedy, modest)

    shares = [tenant.goodput(5.0, 17.0) for tenant in (greedy, modest)]
    assert sum(shares) >= 0.9 * SLOW.rate(2)
    assert min(shares) >= 0.8 * max(shares)
