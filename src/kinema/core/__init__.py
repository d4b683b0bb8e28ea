"""What every layer agrees on: types, configuration, systems, tasks, seeds, errors."""
