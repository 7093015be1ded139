// Package conformance runs the official conformance suite of the Gateway API against the mesh of a cluster, that of KUBECONFIG.
// tests/tests/conformance brings the cluster up and judges what is printed here.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// consecutive answers must be right before an expectation counts as met. The suite's own three are given by
// two pods of the wrong Service by chance, one time in eight.
const consecutive = 20

// mesh is the XMesh whose status says which features the mesh has. What it leaves out is skipped, which the judge takes for a failure.
const mesh = "weft"

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.GatewayClassName = ""
	options.ConformanceProfiles = []suite.ConformanceProfileName{
		suite.MeshHTTPConformanceProfileName,
		suite.MeshGRPCConformanceProfileName,
	}
	options.MeshName = mesh
	options.NamespaceLabels = map[string]string{"weft.mesh/inject": "enabled"}
	options.TimeoutConfig.RequiredConsecutiveSuccesses = consecutive
	conformance.RunConformanceWithOptions(t, options)
}
