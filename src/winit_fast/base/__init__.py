"""What everything else stands on, without a random number: arguments, types, boxes, threads."""
