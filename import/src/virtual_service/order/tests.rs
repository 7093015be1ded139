//! Rules in order.
