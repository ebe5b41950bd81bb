"""Published learning rate schedule: warm-up, then a cosine that ends slightly above zero."""

import pytest

from clipcal.training import cosine_with_warmup


def test_rates_of_five_epochs():
    expected = [1e-5, 0.0035, 0.003166, 0.002291, 0.001209]
    assert cosine_with_warmup(5, 0.0035) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("n_epochs", "rate", "last"), [(10, 0.002, 0.000191), (20, 0.0025, 6.1e-5)])
def test_rates_decrease_to_the_last_rate(n_epochs, rate, last):
    rates = cosine_with_warmup(n_epochs, rate)
    assert len(rates) == n_epochs
    assert rates[:2] == [1e-5, rate]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(last, abs=5e-7)


def test_no_warmup_if_it_takes_all_epochs():
    assert cosine_with_warmup(0, 0.1) == []
    assert cosine_with_warmup(1, 0.1) == [0.1]
    assert cosine_with_warmup(2, 0.1) == [1e-5, 0.1]
    assert cosine_with_warmup(3, 0.1, n_warmup=2, warmup_rate=1e-3) == [1e-3, 1e-3, 0.1]
