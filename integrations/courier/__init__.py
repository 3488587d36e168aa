"""Couriers: what they say of a parcel, in our words."""
