"""Human pose as data: named joints and what detectors do to them."""
