// Judges bundles and X509-SVIDs by go-spiffe, the reference implementation.
//
//	federation bundle DOMAIN BUNDLE         the bundle as go-spiffe reads it
//	federation svid DOMAIN BUNDLE CHAIN     the SPIFFE ID of the chain (PEM), verified against the bundle (JWKS)
//	federation fetch DOMAIN URL ID BUNDLE   a bundle fetched by profile https_spiffe, from the server with that SPIFFE ID
//
// The answer is one JSON object on standard output; what go-spiffe refuses is on standard error, with exit code 1.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func main() {
	answer, err := judge(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judge(arguments []string) (any, error) {
	if len(arguments) < 3 {
		return nil, fmt.Errorf("see the comment in main.go")
	}
	domain, err := spiffeid.TrustDomainFromString(arguments[1])
	if err != nil {
		return nil, err
	}
	switch arguments[0] {
	case "bundle":
		bundle, err := spiffebundle.Load(domain, arguments[2])
		if err != nil {
			return nil, err
		}
		return described(bundle), nil
	case "svid":
		bundle, err := spiffebundle.Load(domain, arguments[2])
		if err != nil {
			return nil, err
		}
		chain, err := os.ReadFile(arguments[3])
		if err != nil {
			return nil, err
		}
		certificates, err := certificatesIn(chain)
		if err != nil {
			return nil, err
		}
		id, _, err := x509svid.Verify(certificates, bundle)
		return id.String(), err
	case "fetch":
		known, err := spiffebundle.Load(domain, arguments[4])
		if err != nil {
			return nil, err
		}
		id, err := spiffeid.FromString(arguments[3])
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		bundle, err := federation.FetchBundle(limited, domain, arguments[2], federation.WithSPIFFEAuth(known, id))
		if err != nil {
			return nil, err
		}
		return described(bundle), nil
	}
	return nil, fmt.Errorf("%s is none of bundle, svid and fetch", arguments[0])
}

func described(bundle *spiffebundle.Bundle) map[string]any {
	authorities := []string{}
	for _, authority := range bundle.X509Authorities() {
		authorities = append(authorities, hex.EncodeToString(authority.Raw))
	}
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	return map[string]any{"authorities": authorities, "sequence": sequence, "refreshHint": hint.Seconds()}
}
