"""From the hub to aten: `forms` brings a graph into what aten takes, `operators` and `layers` map it call by call, `pipeline` is the order."""
