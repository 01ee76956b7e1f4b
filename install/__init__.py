"""Installing Heddle on a cluster: from an IstioOperator to objects (pure), from objects to a cluster that runs them."""
